"""Runs a module of Python's own tests and writes down what becomes of each, for `cargo xtask compat`.

    python3 unittests.py RESULTS test_os

RESULTS gets a line of JSON when a test starts and another when it has ended, so that the tests before a crash or a
hang are known, and so is the one that did it. Nothing of the process is changed that tests could look at: the streams
are its own, and RESULTS is open only while a line is written.
"""

import json
import os
import sys
import traceback
import unittest

from test import support

# From the best to the worst: a test with subtests has the worst result of theirs.
OUTCOMES = ["skipped", "passed", "failed"]


class Results(unittest.TestResult):
    """Writes results to a file, and failures to standard error."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.process = os.getpid()
        self.running = None
        self.outcome = None

    def write(self, test, outcome):
        # A child that a test made, and that came back to here, is not this test.
        if os.getpid() != self.process:
            return
        line = json.dumps({"test": test.id(), "outcome": outcome}) + "\n"
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def settle(self, test, outcome, error=None, why=None):
        if error is not None or why is not None:
            print(f"\n=== {test.id()}: {outcome}: {why or ''}", file=sys.stderr)
            if error is not None:
                traceback.print_exception(*error, file=sys.stderr)
            sys.stderr.flush()
        if self.running is None:
            # A class or a module that could not be set up.
            self.write(test, outcome)
        elif self.outcome is None or OUTCOMES.index(outcome) > OUTCOMES.index(self.outcome):
            self.outcome = outcome

    def startTest(self, test):
        super().startTest(test)
        self.running = test
        self.outcome = None
        self.write(test, "started")

    def stopTest(self, test):
        super().stopTest(test)
        self.write(test, self.outcome or "passed")
        self.running = None

    def addSuccess(self, test):
        self.settle(test, "passed")

    def addError(self, test, err):
        self.settle(test, "failed", err)

    def addFailure(self, test, err):
        self.settle(test, "failed", err)

    def addSkip(self, test, reason):
        self.settle(test, "skipped", why=reason)

    def addExpectedFailure(self, test, err):
        self.settle(test, "passed")

    def addUnexpectedSuccess(self, test):
        self.settle(test, "failed", why="it was expected to fail")

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.settle(test, "failed", err, why=subtest.id())


def main():
    results, module = sys.argv[1:]
    # Without what takes the network, gigabytes or minutes.
    support.use_resources = {}
    tests = unittest.defaultTestLoader.loadTestsFromName("test." + module)
    tests.run(Results(os.path.abspath(results)))


if __name__ == "__main__":
    main()
