"""Syne Tune's MOBSTER as a process: answers how long each suggestion took it. Runs in an environment of its own, knows nothing of ours.

Standard input has one JSON object a line: first {"space": {name: [low, high]}, "kernel", "r_max", "eta", "brackets", "seed"}, then
{"results": [[trial, config, r, metric], ...], "pending": [[trial, config, r], ...], "trial", "milestone"} for each suggestion. The answer
to each is {"seconds", "observations", "model"}: of `get_config` alone, whose configuration is thrown away, so that both see one trace.
"""

import json
import logging
import sys
import time


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what the library prints must not end up among the answers
    from syne_tune.config_space import uniform
    from syne_tune.optimizer.schedulers import HyperbandScheduler

    logging.disable(logging.WARNING)
    setting = json.loads(sys.stdin.readline())
    scheduler = HyperbandScheduler(
        {name: uniform(*ends) for name, ends in setting["space"].items()},
        searcher="bayesopt",
        search_options={"gp_resource_kernel": setting["kernel"], "debug_log": False},
        metric="metric",
        mode="min",
        resource_attr="epoch",
        max_t=setting["r_max"],
        grace_period=1,
        reduction_factor=setting["eta"],
        brackets=setting["brackets"],
        type="stopping",
        random_seed=setting["seed"],
    )
    searcher = scheduler.searcher
    searcher.configure_scheduler(scheduler)
    num_observations = 0
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        for trial, config, r, metric in request["results"]:
            searcher.on_trial_result(str(trial), config, {"epoch": r, "metric": metric}, update=True)
            num_observations += 1
        for trial, config, r in request["pending"]:
            searcher.register_pending(str(trial), config, milestone=r)
        began = time.perf_counter()
        config = searcher.get_config(trial_id=str(request["trial"]), milestone=request["milestone"])
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "observations": num_observations, "found": config is not None}), file=answers, flush=True)


if __name__ == "__main__":
    main()
