"""Threads that sleep while they wait: asked for before torch is loaded, and left alone afterwards."""

import os
import subprocess
import sys

import torch

from omni_lite import threads


def policy_after(code: str, **env: str) -> str:
    """What the policy is in a new process after some imports."""
    clean = {name: value for name, value in os.environ.items() if name != threads.POLICY} | env
    run = subprocess.run([sys.executable, "-c", f"{code}; import os; print(os.environ.get('{threads.POLICY}'))"],
                         env=clean, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_importing_the_library_first_asks_for_sleeping_threads():
    assert policy_after("import omni_lite, sys; assert 'torch' not in sys.modules") == "PASSIVE"


def test_somebodys_choice_stays():
    assert policy_after("import omni_lite", OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"


def test_it_is_too_late_once_torch_is_there():
    loaded = "import sys, types; sys.modules['torch'] = types.ModuleType('torch')"
    assert policy_after(f"{loaded}; import omni_lite") == "None"


def test_a_small_model_computes_on_one_thread_and_a_large_one_on_all(monkeypatch):
    before = torch.get_num_threads()
    small, large = torch.nn.Linear(4, 4), torch.nn.Linear(10_000, 10_000, device="meta")
    try:
        torch.set_num_threads(2)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        threads.use_one_thread_if_small(large)
        assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        threads.use_one_thread_if_small(small)
        assert torch.get_num_threads() == 2, "somebody chose a number"
        monkeypatch.delenv("OMP_NUM_THREADS")
        threads.use_one_thread_if_small(small)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
