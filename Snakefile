"""emsr: super-resolve electron-microscopy volumes and score what that was worth."""

import sys
from pathlib import Path

from emsr.commands.check import stop_unless_fit
from emsr.config_files import stop_unless_harmless
from emsr.driver.rounds import only_when_needed
from emsr.scales import NAME
from emsr.segmenting import Segmenting
from emsr.settings import Settings, wildcard

stop_unless_harmless("config.yaml", *workflow.configfiles)


configfile: "config.yaml"


settings = Settings.read(config)
segmenting = Segmenting(settings)
R = settings.root
shell.prefix(f'set -euo pipefail; export PATH="{Path(sys.executable).parent}:$PATH"; ')


wildcard_constraints:
    volume=wildcard(settings.config.volumes),
    training=wildcard(settings.config.trainings),
    image="hr|lr|labels|mask",
    part="(deviation/)?",
    scale=NAME,
    stage="[a-z]+",
    segmentation=wildcard(
        [name for names in segmenting.names.values() for name in names]
    ),


scattergather:
    job=settings.config.jobs,


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/superresolve.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/score.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        settings.targets,
        lambda wildcards: segmenting.lacking,


onstart:
    stop_unless_fit(settings.config)
    only_when_needed(workflow)


onsuccess:
    if Path(settings.report_path).is_file():
        print(f"The report is {Path(settings.report_path).resolve()}")
