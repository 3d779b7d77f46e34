"""What a run starts: processes that can not outlive it, what they are given, and what they write."""
