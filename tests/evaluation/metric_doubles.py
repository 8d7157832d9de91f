"""Metrics for tests, found by worker processes by name."""

import os
import sys
import time


def correlation(reference, estimate, sample_rate):
    return float(reference @ estimate / (reference @ reference))


def hang(reference, estimate, sample_rate):
    time.sleep(600)


def die(reference, estimate, sample_rate):
    os._exit(3)


def fail(reference, estimate, sample_rate):
    raise ArithmeticError("no such luck")


def infinite(reference, estimate, sample_rate):
    return float("inf")


def chatter(reference, estimate, sample_rate):
    print("a metric that prints must not disturb the answers")
    return 1.0


def jax_is_loaded(reference, estimate, sample_rate):
    return float("jax" in sys.modules)


def not_installed(reference, estimate, sample_rate):
    import no_such_package_zzz  # noqa: F401
