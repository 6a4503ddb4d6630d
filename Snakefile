"""emsr: super-resolve electron-microscopy volumes and score what that was worth."""

from emsr.commands.check import check
from emsr.config import parse
from emsr.settings import Settings, wildcard


configfile: "config.yaml"


settings = Settings(parse(config))
R = settings.root


wildcard_constraints:
    volume=wildcard(settings.config.volumes),
    training=wildcard(settings.config.trainings),
    image="hr|lr|labels",
    scale="[0-9]+",
    stage="[a-z]+",


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
