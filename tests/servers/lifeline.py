"""Run a command for as long as standard input is open: `lifeline.py COMMAND...`.

The system closes a pipe with the process that holds its other end, however that ends, so no server outlives its tests.
"""

import signal
import subprocess
import sys
import threading

# Ctrl-C reaches all processes of a terminal; this one ends when its server has.
signal.signal(signal.SIGINT, lambda *_: None)
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)


def watch() -> None:
    sys.stdin.buffer.read()
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()


threading.Thread(target=watch, daemon=True).start()
code = process.wait()
print(f"ended with {code}", flush=True)
sys.exit(code != 0)
