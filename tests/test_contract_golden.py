"""What plugins rely on changes on purpose, or not at all."""

import json
import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts/update_contract.py"


def test_the_contract_is_the_one_that_is_written_down():
    update = runpy.run_path(str(SCRIPT))
    assert json.loads(update["written"]()) == json.loads(update["GOLDEN"].read_text()), (
        "the contract has changed. If that is meant: python scripts/update_contract.py, and a fragment in changelog.d/"
    )
