"""Programs in processes of their own, which find no torch: forks of one interpreter that has imported what each needs, as its start takes
longer than most of them. It has opened no session and read no bundle."""

from __future__ import annotations

import atexit
import functools
import json
import subprocess
import sys
from pathlib import Path

EXPORT_HALF = ("torch", "transformers", "onnx", "onnx_ir")

# Where the export half's packages are installed too, they are made absent: the onnxruntime of onnxruntime-training 1.19.2 imports torch
# by itself if there is any. What a fork writes goes to the files that it is given; the status that it ended with goes to standard output.
SERVER = f"""
import json, os, signal, sys, traceback
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXPORT_HALF}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import lcsb_mobile.cli
from lcsb_mobile.runners import import_runtime
import_runtime("onnxruntime")
for line in sys.stdin:
    program, arguments, *files = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(300)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, file in enumerate(files, 1):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.argv = ["-c", *arguments]
            try:
                exec(program, {{"__name__": "__main__", "sys": sys}})
                code = 0
            except SystemExit as ending:
                code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)  # it may be a text
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def python(directory: Path, program: str, *arguments: object) -> str:
    """The standard output of a program, which must end with 0. What it writes is kept in files of `directory`."""
    server, files = _server(), (directory / "stdout", directory / "stderr")
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps([program, [str(argument) for argument in arguments], *map(str, files)]) + "\n")
    server.stdin.flush()
    code = server.stdout.readline().strip()
    stdout, stderr = (file.read_text("utf-8") if file.exists() else "" for file in files)
    assert code == "0", f"{code}: {stderr}"
    return stdout


@functools.cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)  # the end of its input is its end
    return server
