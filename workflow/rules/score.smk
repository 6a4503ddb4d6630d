# What super-resolution was worth, and the page that shows it.


rule score:
    input:
        lr=lambda wildcards: settings.lr(wildcards.volume),
        hr=lambda wildcards: settings.truth(wildcards.volume),
        sr=f"{R}/{{volume}}/sr.json",
        segmentation=lambda wildcards: settings.segmentation_scores(wildcards.volume)
        or [],
    output:
        f"{R}/{{volume}}/scores.json",
    log:
        f"{R}/logs/score/{{volume}}.log",
    benchmark:
        f"{R}/benchmarks/score/{{volume}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        settings=lambda wildcards: settings.score(wildcards.volume),
    shell:
        "emsr score {params.settings:q} {output:q} --log {log:q}"


segmented = [
    name for name in settings.config.volumes if settings.segmentation_scores(name)
]


rule report:
    input:
        settings.evidence,
    output:
        page=report(f"{R}/report.html", caption="../report/page.rst", category="Report"),
        headline=report(
            f"{R}/report/headline.tsv",
            caption="../report/headline.rst",
            category="Scores",
            labels={"of": "all volumes", "what": "means"},
        ),
        rules=report(
            f"{R}/report/rules.tsv",
            caption="../report/rules.rst",
            category="Time and memory",
        ),
        volumes=[
            report(
                f"{R}/report/volumes/{name}/{file}",
                caption=f"../report/{Path(file).stem}.rst",
                category="Scores" if file.endswith(".tsv") else "Pictures",
                labels={"of": name, "what": Path(file).stem},
            )
            for name in settings.superresolved
            for file in ("sections.png", "planes.png", "scores.tsv")
        ],
        sampled=[
            report(
                f"{R}/report/volumes/{name}/{file}",
                caption="../report/deviation.rst",
                category="Samples",
                labels={"of": name, "what": Path(file).stem},
            )
            for name in settings.superresolved
            if settings.config.volumes[name].samples
            for file in ("deviation.tsv", "deviation.png")
        ],
        trainings=[
            report(
                f"{R}/report/trainings/{name}/{file}",
                caption=f"../report/{Path(file).stem}.rst",
                category="Training",
                labels={"of": name, "what": Path(file).stem},
            )
            for name in settings.config.trainings
            for file in ("curves.png", "health.tsv")
        ],
        segmented=[
            report(
                f"{R}/report/volumes/{name}/{file}",
                caption=f"../report/{Path(file).stem}.rst",
                category="Segmentation",
                labels={"of": name, "what": Path(file).stem},
            )
            for name in segmented
            for file in (
                "segmentation.tsv",
                "mistakes.tsv",
                "mistakes.png",
                "membrane.tsv",
                "membrane.png",
            )
        ],
        worth=[
            report(
                f"{R}/report/{file}",
                caption="../report/worth.rst",
                category="Segmentation",
                labels={"of": "all volumes", "what": "worth"},
            )
            for file in ("worth.tsv", "worth.png")
            if segmented
        ],
    log:
        f"{R}/logs/report.log",
    benchmark:
        f"{R}/benchmarks/report.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        settings=lambda wildcards: settings.report(),
    shell:
        "emsr report {params.settings:q} {output.page:q} --log {log:q}"
