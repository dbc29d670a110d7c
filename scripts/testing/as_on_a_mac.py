"""Runs a command on Linux as a Mac would run it: `python scripts/testing/as_on_a_mac.py COMMAND...`

There is no /proc, and Python's `os` has nothing that macOS lacks. This says what our code and the packages below it make of that, and
nothing about macOS itself. /proc is hidden in a mount namespace of the command's own; its `cpuinfo` stays, without which ONNX Runtime
ends the process. It needs `unshare` of util-linux, and root or a system that lets users make namespaces. The exit code is the command's;
3, and one line that says why: this cannot be done here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Of `os` and `select` on Linux, in Python 3.10 to 3.14, and not on macOS, as typeshed has it.
ABSENT = """
copy_file_range eventfd eventfd_read eventfd_write fdatasync getrandom getresgid getresuid getxattr listxattr memfd_create pidfd_open pipe2
posix_fadvise posix_fallocate removexattr sched_getaffinity sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity
sched_setparam sched_setscheduler setns setresgid setresuid setxattr splice timerfd_create timerfd_gettime timerfd_gettime_ns
timerfd_settime timerfd_settime_ns unshare O_DIRECT O_LARGEFILE O_NOATIME O_PATH O_RSYNC O_TMPFILE epoll
""".split()  # noqa: SIM905 - names, a paragraph of them

SITE = f"""
import os, posix, select
for module in (os, posix, select):
    for name in {ABSENT}:
        if hasattr(module, name):
            delattr(module, name)
"""

# The command is no `exec`: on Linux a process inherits the highest resident size of the one that it takes the place of.
HIDE = """
cpuinfo=$(cat /proc/cpuinfo) && mount -t tmpfs tmpfs /proc && printf '%s\\n' "$cpuinfo" >/proc/cpuinfo || exit 3
"$@"
exit $?
"""


def main() -> int:
    command = sys.argv[1:]
    if not command:
        sys.exit(__doc__)
    if shutil.which("unshare") is None:
        return unavailable("unshare of util-linux is not here")
    namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    tried = subprocess.run([*namespace, "mount", "-t", "tmpfs", "tmpfs", "/proc"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return unavailable(f"hiding /proc needs root, or a system that lets users make namespaces ({tried.stderr.strip()})")
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "sitecustomize.py").write_text(SITE, encoding="utf-8")
        path = os.pathsep.join([directory, *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run([*namespace, "sh", "-c", HIDE, "sh", *command], env=os.environ | {"PYTHONPATH": path}, check=False)
    return done.returncode


def unavailable(why: str) -> int:
    print(f"as on a Mac: {why}", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())
