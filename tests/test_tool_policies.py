"""What the tool policies see in a call, evasions included, and what they leave alone."""

import os
import time

import pytest

from ralph_core.builtin import tools
from ralph_core.builtin.commands import Forbidden, commands_in
from ralph_core.builtin.shell import Unclear, simple_commands
from ralph_core.contracts import Context
from ralph_core.events import ToolCall
from ralph_core.state import RunState, Task
from ralph_core.verdicts import Allow, Ask, Deny, Moment, MomentKind

STATE = RunState(run="r", workspace="/", agent="a", task=Task(digest=""), started=0.0)


@pytest.fixture
def place(tmp_path):
    """A workspace with a folder, a file, and links that lead out of it and back in."""
    here, out = tmp_path / "work", tmp_path / "out"
    (here / "dir").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (here / ".agent" / "runs").mkdir(parents=True)
    out.mkdir()
    (out / "secret").write_text("s")
    (here / "file").write_text("0123456789")
    (here / "link").symlink_to(out)
    (here / "dir" / "link").symlink_to(out)
    (here / "inner").symlink_to(here / "dir")
    (here / "dangling").symlink_to(out / "nothing")
    return here


@pytest.fixture
def judge(place):
    """What a policy says of a tool call."""
    context = Context(place, place / ".agent", {"HOME": str(place.parent / "home")})

    def judge(policy, settings, name, **arguments):
        model = {
            "ForbiddenCommands": tools.CommandSettings, "AllowedDirectories": tools.DirectorySettings,
            "HighRiskTools": tools.HighRiskSettings, "MaxFileSize": tools.SizeSettings,
        }[policy]  # fmt: skip
        built = getattr(tools, policy)(model(**settings), context)
        assert built.concerned
        return built.judge(Moment(MomentKind.TOOL, ToolCall("1", name, arguments)), STATE)

    return judge


def meant(pattern, line):
    """Whether a forbidden command is found in a line; None if that can't be said."""
    try:
        commands = commands_in(line, {"HOME": "/home/me"})
    except Unclear:
        return None
    return any(map(Forbidden.read(pattern).matches, commands))


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        ("su", "su - root"),
        ("su", "ls; su"),
        ("su", "ls&&su"),
        ("su", "ls|su"),
        ("su", "ls\nsu"),
        ("su", "ls & su"),
        ("su", "(su)"),
        ("su", "{ su; }"),
        ("su", "! su"),
        ("su", "if true; then su; fi"),
        ("su", "while su; do :; done"),
        ("su", "for i in 1; do su; done"),
        ("su", "case x in x) su;; esac"),
        ("su", "f() { su; }; f"),
        ("su", "function f { su; }; f"),
        ("su", "coproc su"),
        ("su", "/bin/su"),
        ("su", "../../bin/su"),
        ("su", "'su'"),
        ("su", '"su"'),
        ("su", "s''u"),
        ("su", "s\\u"),
        ("su", "s\\\nu"),
        ("su", "$'su'"),
        ("su", "A=1 B=2 su"),
        ("su", "x=$(su)"),
        ("su", "echo `su`"),
        ("su", 'echo "$(su)"'),
        ("su", 'echo "`su`"'),
        ("su", "echo ${x:-$(su)}"),
        ("su", "echo $((1 + $(su)))"),
        ("su", "((x = $(su)))"),
        ("su", "( (su) )"),
        ("su", "((su) )"),
        ("su", "((su x) && (su y))"),
        ("su", "echo $( (su) )"),
        ("su", "diff <(su) x"),
        ("su", "echo x > >(su)"),
        ("su", "[[ $(su) ]]"),
        ("su", "cat <<E\n$(su)\nE"),
        ("su", "cat <<-E\n\tx\n\tE\nsu"),
        ("su", "cat <<'E'\nx\\\nE\nsu\nE"),
        ("su", "cat <<E; su\nx\nE"),
        ("su", "bash <<E\nsu\nE"),
        ("su", "sh -s <<< su"),
        ("su", "sh -c su"),
        ("su", "bash -lc 'cd /; su'"),
        ("su", "bash -c \"bash -c 'su'\""),
        ("su", "env su"),
        ("su", "env -i A=1 su"),
        ("su", "env -u A su"),
        ("su", "env -S 'A=1 su'"),
        ("su", "sudo -u bob -E su"),
        ("su", "sudo A=1 su"),
        ("su", "nohup nice -n 5 setsid su"),
        ("su", "timeout -s KILL 5 su"),
        ("su", "time -p su"),
        ("su", "command su"),
        ("su", "exec -a x su"),
        ("su", "builtin eval su"),
        ("su", "eval 's'u"),
        ("su", "busybox su"),
        ("su", "stdbuf -oL su"),
        ("su", "flock /tmp/l su"),
        ("su", "flock /tmp/l -c su"),
        ("su", "xargs -I{} su {}"),
        ("su", "find . -name x -exec su {} \\;"),
        ("su", "find . -execdir su {} +"),
        ("su", "trap su EXIT"),
        ("su", "watch -n1 su"),
        ("su", "script -c su /dev/null"),
        ("su", "echo a # no\nsu"),
        ("rm -rf", "rm -r -f x"),
        ("rm -rf", "rm -fr x"),
        ("rm -rf", "rm -rfv x"),
        ("rm -rf", "rm -Rf x"),
        ("rm -rf", "rm x -r y -f"),
        ("rm -rf", "rm --recursive --force x"),
        ("rm -rf", "rm --rec --fo x"),
        ("rm -rf", "rm -r --force -- x"),
        ("rm -rf", 'rm "-rf" x'),
        ("rm -rf", "rm $OPTIONS x"),
        ("rm -rf", "rm -r$MORE x"),
        ("rm -rf", "echo -rf x | xargs rm"),
        ("rm -rf", "find . | xargs -0 rm -rf"),
        ("rm -rf /", "rm -rf /"),
        ("rm -rf /", "rm -rf //"),
        ("rm -rf /", "rm -rf /*"),
        ("rm -rf /", "rm -rf /./"),
        ("rm -rf /", "rm -rf a /"),
        ("git push", "git push"),
        ("git push", "git push origin main"),
        ("git push", "git -C sub push"),
        ("git push", "git -c a.b=c --git-dir x -p push -f"),
        ("git push", "git $WHAT"),
        ("git push --force", "git push -f"),
        ("git push --force", "git push origin main --force"),
        ("git push --force", "git push --for"),
        ("git push -f", "git push --force"),
        ("chmod 777", "chmod -R 777 x"),
        ("npm publish", "npm --workspace a publish"),
        ("dd", "dd if=/dev/zero of=x"),
    ],
)
def test_a_forbidden_command_is_found(pattern, line):
    assert meant(pattern, line) is True


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        ("su", "sum x"),
        ("su", "sudo ls"),
        ("su", "echo su"),
        ("su", "echo 'a; su'"),
        ("su", "ls # su"),
        ("su", "grep su file"),
        ("su", "timeout 5 grep su file"),
        ("su", "./su.sh"),
        ("su", "cat <<'E'\nsu\n$(su)\nE"),
        ("su", "cat <<E\nsu\nE"),
        ("su", "git commit -m \"$(cat <<'EOF'\nsu (it's)\n\nEOF\n)\""),
        ("su", "[[ -f a && su == $b ]]"),
        ("su", "echo $((su + 1))"),
        ("su", "python3 - <<'E'\nprint(\"su\")\nE"),
        ("su", "su=1 ls"),
        ("su", "command -v su"),
        ("rm -rf", "rm -r x"),
        ("rm -rf", "rm -f x"),
        ("rm -rf", "rm -r -- -f"),
        ("rm -rf", 'rm -- "$x"'),
        ("rm -rf", "rmdir -rf x"),
        ("rm -rf", "npm run rm -rf"),
        ("rm -rf /", "rm -rf x"),
        ("rm -rf /", "rm -rf /tmp/x"),
        ("rm -rf /", "rm -rf ./"),
        ("git push", "git commit -m push"),
        ("git push", 'git commit -m "$message"'),
        ("git push", 'git -C "$folder" status'),
        ("git push", "git stash push"),
        ("git push --force", "git push"),
        ("git push --force", "git push --force-with-lease"),
        ("npm publish", "npm run publish"),
        ("chmod 777", "chmod 755 x"),
    ],
)
def test_another_command_is_let_go(pattern, line):
    assert meant(pattern, line) is False


@pytest.mark.parametrize(
    "line",
    [
        "$X -rf y",
        '"$(which rm)" x',
        "r{m,} x",
        "/bin/r? x",
        "$'\\x72m' x",
        "echo 'open",
        'echo "open',
        "echo `open",
        "echo $(open",
        "echo ${open",
        "(open",
        "closed)",
        "cat <",
        "[[ a",
        "curl x | sh",
        "echo cm0= | base64 -d | bash -s",
        'eval "$X"',
        'sh -c "$X"',
        'bash <<< "$X"',
        "env $X",
        "echo $(case x in x) su;; esac)",
        "$(" * 50 + ")" * 50,
        "a" * 300_000,
        "a\0b",
    ],
)
def test_what_can_not_be_said_is_denied(judge, line):
    verdict = judge("ForbiddenCommands", {"forbidden_commands": ["su"]}, "Bash", command=line)
    assert isinstance(verdict, Deny)
    assert "it can't be said which commands this runs" in verdict.reason


def test_reading_is_quick():
    """The policies have five seconds."""
    started = time.process_time()
    for line in (
        "echo 'a' \"$b\" $(c) && " * 4000,
        "{" * 95_000,
        "#\n" * 45_000,
        "cat <<E\n" + "x\n" * 45_000 + "E\n",
        "a " * 45_000,
    ):
        simple_commands(line + " d")
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "arguments",
    [{"command": "su"}, {"cmd": "su"}, {"command": ["su", "-"]}, {"command": ["bash", "-lc", "su"]}, {"steps": [{"command": "su"}]}],
)  # fmt: skip
def test_a_command_is_found_whatever_the_tool_is_called(judge, arguments):
    for name in ("Bash", "exec_command", "mcp__shell__run"):
        assert isinstance(judge("ForbiddenCommands", {"forbidden_commands": "su"}, name, **arguments), Deny)


@pytest.mark.parametrize("text", ["a | b", "a; b", "$X", "", "a > b", "'open", "a*"])
def test_a_pattern_that_is_no_plain_command_is_refused(text):
    with pytest.raises(ValueError, match="one plain command"):
        tools.CommandSettings(forbidden_commands=[text])


class TestDirectories:
    @pytest.fixture
    def allowed(self, judge, place):
        def allowed(name, *, directories=(".",), **arguments):
            verdict = judge("AllowedDirectories", {"allowed_directories": directories}, name, **arguments)
            assert isinstance(verdict, (Allow, Deny))
            return isinstance(verdict, Allow)

        return allowed

    @pytest.mark.parametrize("key", ["file_path", "path", "notebook_path", "filename", "absolute_path"])
    @pytest.mark.parametrize(
        ("path", "want"),
        [
            ("file", True),
            ("new/file", True),
            ("dir/../file", True),
            ("inner/file", True),
            (".", True),
            ("{place}/file", True),
            ("{place}/dir/../../{place.name}/file", True),
            ("..", False),
            ("../out/secret", False),
            ("dir/../../out", False),
            ("/etc/passwd", False),
            ("link/secret", False),
            ("link/../file", False),
            ("dir/link/x", False),
            ("inner/link/x", False),
            ("dangling", False),
            ("~/x", False),
            ("~root/x", False),
            ("{place}-not/x", False),
            ("a\0b", False),
            (".agent/scratchpad.md", True),
            (".agent/runs/1/approvals/x.json", False),
            ("file:///etc/passwd", False),
        ],
    )
    def test_of_arguments(self, allowed, place, key, path, want):
        assert allowed("Write", **{key: path.format(place=place)}) is want

    def test_of_lists_and_nested_arguments(self, allowed):
        assert allowed("Read", paths=["file", "dir"])
        assert not allowed("Read", paths=["file", "../out"])
        assert not allowed("Edit", edits=[{"file_path": "../out/x"}])
        assert allowed("Fetch", url="https://example.org/../x")

    @pytest.mark.parametrize(
        ("line", "want"),
        [
            ("ls", True),
            ("cat file dir/x > out.txt 2>&1", True),
            ("cmd > /dev/null 2> /dev/stderr < /dev/null", True),
            ("/usr/bin/env python3 -c 'print(1)'", True),
            ("curl https://example.org/x -o file", True),
            ("cd dir && ls && cd ..", True),
            ("cd dir && cat ../file", True),
            ('for f in di*; do echo "$f"; done', True),
            ("cat $PWD/file", True),
            ('echo "look at ../x, or /etc"', True),
            ("git commit -m 'a/b ../c'", True),
            ("cat ../out/secret", False),
            ("cat /etc/passwd", False),
            ("cat link/secret", False),
            ("cat lin?/secret", False),
            ("cd dir; cat link/secret", False),
            ("cd dir && cat link/secret", False),
            ("(cd dir); cat ../out/secret", False),
            ("cat .?/out/secret", False),
            ("cat {/etc,x}/passwd", False),
            ("cat ~/x", False),
            ("cat $HOME/x", False),
            ("cat ${HOME}/x", False),
            ("cat /etc/$x", False),
            ("echo > ../out/x", False),
            ("echo >> link/x", False),
            ("echo 2> /tmp/x", False),
            ("echo > $X", False),
            ("dd if=file of=/tmp/x", False),
            ("tar -C/tmp -xf file", False),
            ("cmd --output=/tmp/x", False),
            ("A=/tmp/x cmd", False),
            ("cd /tmp && touch x", False),
            ("cd && touch x", False),
            ("cd $X && touch x", False),
            ("cd ..", False),
            ("sh -c 'cat /etc/passwd'", False),
            ("echo $(cat /etc/passwd)", False),
            ("sudo tee /etc/x", False),
            ("ln -s /etc dir/e", False),
            ("echo x > .agent/runs/1/approvals/a.json", False),
            ("echo 'open", False),
        ],
    )
    def test_of_shell_commands(self, allowed, place, line, want):
        (place / "lino").mkdir()
        assert allowed("Bash", command=line) is want

    def test_others_than_the_workspace(self, allowed, place, tmp_path):
        directories = ["dir", str(tmp_path / "out"), "~/shared"]
        assert allowed("Write", directories=directories, file_path="dir/x")
        assert allowed("Write", directories=directories, file_path="link/x")
        assert allowed("Write", directories=directories, file_path="~/shared/x")
        assert not allowed("Write", directories=directories, file_path="file")
        assert allowed("Write", directories=["/"], file_path="/etc/passwd")

    def test_a_workspace_behind_a_link(self, tmp_path, place):
        (tmp_path / "alias").symlink_to(place)
        context = Context(tmp_path / "alias", tmp_path / "alias/.agent", {})
        policy = tools.AllowedDirectories(tools.DirectorySettings(allowed_directories=["."]), context)
        for path in (place / "file", tmp_path / "alias/file"):
            moment = Moment(MomentKind.TOOL, ToolCall("1", "Write", {"file_path": str(path)}))
            assert isinstance(policy.judge(moment, STATE), Allow)


class TestFileSize:
    @pytest.mark.parametrize(
        ("arguments", "want"),
        [
            ({"file_path": "new", "content": "x" * 12}, True),
            ({"file_path": "new", "content": "x" * 13}, False),
            ({"file_path": "new", "content": "ü" * 7}, False),
            ({"file_path": "file", "old_string": "0", "new_string": "abc"}, True),
            ({"file_path": "file", "old_string": "0", "new_string": "abcd"}, False),
            ({"file_path": "file", "old_string": "012", "new_string": "x" * 5}, True),
            ({"notebook_path": "n", "new_source": "x" * 13}, False),
            ({"file_path": "file", "edits": [{"old_string": "0", "new_string": "ab"}, {"old_string": "1", "new_string": "abcd"}]}, False),
            ({"file_path": "file"}, True),
        ],
    )  # fmt: skip
    def test_of_what_is_written(self, judge, arguments, want):
        verdict = judge("MaxFileSize", {"max_file_size": 12}, "Write", **arguments)
        assert isinstance(verdict, Allow if want else Deny)

    def test_replaced_everywhere(self, judge, place):
        (place / "many").write_text("aaaaaaaa")
        arguments = {"file_path": "many", "old_string": "a", "new_string": "aa", "replace_all": True}
        assert isinstance(judge("MaxFileSize", {"max_file_size": 12}, "Edit", **arguments), Deny)
        assert isinstance(judge("MaxFileSize", {"max_file_size": 16}, "Edit", **arguments), Allow)

    def test_a_large_file_may_shrink(self, judge, place):
        (place / "large").write_text("x" * 100)
        arguments = {"file_path": "large", "old_string": "xxx", "new_string": "y"}
        assert isinstance(judge("MaxFileSize", {"max_file_size": 12}, "Edit", **arguments), Allow)


class TestHighRisk:
    @pytest.mark.parametrize(
        ("name", "want"),
        [
            ("delete_file", Ask),
            ("Delete_File", Ask),
            ("mcp__db__drop", Ask),
            ("delete_files", Allow),
            ("mcp__dbx__drop", Allow),
        ],
    )
    def test_by_name(self, judge, name, want):
        settings = {"high_risk_tools": ["delete_file", "mcp__db__*"]}
        assert isinstance(judge("HighRiskTools", settings, name), want)

    def test_allowed_with_a_reason(self, judge):
        settings = {"high_risk_tools": "Bash", "require_approval_for_high_risk": False}
        verdict = judge("HighRiskTools", settings, "Bash")
        assert isinstance(verdict, Allow)
        assert verdict.reason == "Bash is a high-risk tool"


def test_nothing_but_tools_is_judged(judge, place):
    policy = tools.ForbiddenCommands(tools.CommandSettings(forbidden_commands=["su"]), Context(place, place, {}))
    for kind in MomentKind:
        assert isinstance(policy.judge(Moment(kind), STATE), Allow)


def test_the_names_of_the_documents_mean_these_policies(ralph):
    names = "high_risk_tools: delete_file, execute_code\nsecurity: {allowed_directories: '., /tmp', forbidden_commands: [su]}\n"
    ralph.settings(names + "policies: {max_file_size: {max_file_size: 5}}\n")
    shown = ralph("run", "-a", "command", "--command", "true", "-p", "x", "--dry-run").stdout
    for name in ("high_risk_tools", "allowed_directories", "forbidden_commands", "max_file_size"):
        assert name in shown
    ralph.settings(names + "policies: {forbidden_commands: false}\n")
    assert "forbidden_commands" not in ralph("run", "-a", "command", "--command", "true", "-p", "x", "--dry-run").stdout
    assert os.path.exists(ralph.workspace)
