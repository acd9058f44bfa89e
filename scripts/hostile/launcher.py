"""Starts programs with limits and says how they ended.

What a process has used at most (`ru_maxrss`) counts from before it became the program: as a copy of the process that
started it. So programs are started by a small process that does nothing else; the ones that make inputs are large.
"""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time

# What a program may take of address space, and write into one file, so that a runaway does not end the machine.
MOST_ADDRESSES = 12 << 30
MOST_FILE = 2 << 30
# Looks at a process that waits this long after one another, each a quarter of a second apart, before it counts as stuck.
PATIENCE = 40
EVERY = 0.25


def threads(pid):
    """Whether all threads of a process wait for something, and the processor time that they have had in ticks."""
    waiting, ticks = True, 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat", "rb") as f:
            fields = f.read().rpartition(b")")[2].split()
        waiting &= fields[0] == b"S"
        ticks += int(fields[11]) + int(fields[12])
    return waiting, ticks


def resident(pid):
    """Bytes that a process has in memory."""
    with open(f"/proc/{pid}/statm", "rb") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


def watch(pid, job):
    """Waits for a process. Gives its wait status, what it used, and why it was stopped if it was.

    A process that is held up, by a busy machine or since somebody has stopped it, is not stuck: only waiting counts, and
    only in the time in which this process runs itself.
    """
    handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    stopped, idle, before = None, 0, None
    while True:
        if handle is None:
            time.sleep(0.005)
        else:
            select.select([handle], [], [], EVERY)
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if stopped is None and os.path.isdir(f"/proc/{pid}/task"):
            try:
                waiting, ticks = threads(pid)
                idle = idle + 1 if waiting and ticks == before else 0
                before = ticks
                if idle > (PATIENCE if handle is not None else 2000):
                    stopped = "waits for something that does not come"
                elif resident(pid) > job["memory"]:
                    stopped = "takes ever more memory"
            except (OSError, IndexError, ValueError):
                continue  # it has just ended
            if stopped:
                os.killpg(pid, signal.SIGKILL)
    if handle is not None:
        os.close(handle)
    try:
        os.killpg(pid, signal.SIGKILL)  # what it has started itself and not waited for
    except (ProcessLookupError, PermissionError):
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "status": status,
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss * unit,
        "stopped": stopped,
    }


def start(job):
    """Starts a program in a group of its own, with its limits, and waits for it."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and a program would inherit that
                signal.signal(number, signal.SIG_DFL)
            for target, path, flags in (
                (0, job["stdin"], os.O_RDONLY),
                (1, job["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
                (2, job["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            ):
                os.dup2(os.open(path, flags, 0o600), target)
            seconds = int(job["seconds"]) + 2
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_FILE, MOST_FILE))
            if hasattr(resource, "RLIMIT_AS") and sys.platform != "darwin":
                resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))
            os.chdir(job["folder"])
            os.execve(job["command"][0], job["command"], job["environment"])
        finally:
            os._exit(126)
    return watch(pid, job)


class Launcher:
    """The small process, as the one that makes inputs sees it."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-E", os.path.abspath(__file__)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, **job):
        """Runs a program. Paths and arguments may be text with surrogates for bytes that are no UTF-8."""
        self.process.stdin.write(json.dumps(job).encode() + b"\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("the process that starts programs has ended")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


if __name__ == "__main__":
    for line in sys.stdin.buffer:
        print(json.dumps(start(json.loads(line))), flush=True)
