"""Snakemake's scheduler looks at the jobs that wait when something has happened, and not all the time."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)

DEFAULT = (100, 1.0)  # jobs, seconds: what snakemake limits itself to where nobody asks


def only_when_needed(workflow: Any) -> None:
    """Take the limit of 100 jobs a second away, which nobody asked for; to be called when ``workflow`` starts.

    As long as there is a limit, every round of snakemake's scheduler asks for another after the limit's time span, and
    so does every round that follows a job's end: their number grows with the jobs that have ended while others wait
    (seen up to 9.27). Another limit (``--max-jobs-per-timespan``) stays, and this one too where a round looks at a
    sample of the jobs alone (``--scheduler-subsample``), for then the others need a next one.
    """
    scheduler = getattr(workflow, "scheduler", None)
    if getattr(getattr(workflow, "scheduling_settings", None), "subsample", None):
        return
    limit = getattr(scheduler, "job_rate_limiter", None)
    if limit is None or (getattr(limit, "max_jobs", None), getattr(limit, "timespan", None)) != DEFAULT:
        return
    scheduler.job_rate_limiter = None  # type: ignore[union-attr]
    log.debug("snakemake submits jobs without its limit of %d in %g s", *DEFAULT)
