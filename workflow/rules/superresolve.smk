# lr to sr, and to how far samples of it lie apart: create the array once, fill it job by job, prove that it is whole.


rule allocate:
    input:
        lr=lambda wildcards: settings.lr(wildcards.volume),
        mask=lambda wildcards: settings.mask(wildcards.volume),
        card=lambda wildcards: settings.card(wildcards.volume),
    output:
        f"{R}/{{volume}}/{{part}}sr/allocate.json",
    log:
        f"{R}/logs/allocate/{{part}}{{volume}}.log",
    benchmark:
        f"{R}/benchmarks/allocate/{{part}}{{volume}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        settings=lambda wildcards: settings.allocate(wildcards.volume, wildcards.part),
        mismatch=lambda wildcards: settings.accept_mismatch(wildcards.volume),
    shell:
        "emsr allocate {params.settings:q} {input.lr:q} {input.card:q} {output:q} {params.mismatch}"
        " --log {log:q}"


rule superresolve:
    input:
        f"{R}/{{volume}}/{{part}}sr/allocate.json",
    output:
        f"{R}/{{volume}}/{{part}}sr/jobs/{{scatteritem}}.json",
    log:
        f"{R}/logs/superresolve/{{part}}{{volume}}.{{scatteritem}}.log",
    benchmark:
        f"{R}/benchmarks/superresolve/{{part}}{{volume}}.{{scatteritem}}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=lambda wildcards, threads: 4000 + 2000 * threads,
        runtime=240,
    params:
        settings=lambda wildcards: settings.superresolve(
            wildcards.volume, wildcards.part
        ),
    shell:
        "emsr superresolve {params.settings:q} {input:q} {wildcards.scatteritem} {output:q}"
        " --workers {threads} --log {log:q}"


rule stitch:
    input:
        allocate=f"{R}/{{volume}}/{{part}}sr/allocate.json",
        marks=lambda wildcards: settings.marks(wildcards.volume, wildcards.part)
        or gather.job(
            settings.path(
                wildcards.volume, f"{wildcards.part}sr", "jobs", "{scatteritem}.json"
            )
        ),
    output:
        f"{R}/{{volume}}/{{part}}sr.json",
    log:
        f"{R}/logs/stitch/{{part}}{{volume}}.log",
    benchmark:
        f"{R}/benchmarks/stitch/{{part}}{{volume}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=lambda wildcards, threads: 1000 + 1500 * threads,
        runtime=240,
    params:
        settings=lambda wildcards: settings.stitch(wildcards.volume, wildcards.part),
    shell:
        "emsr stitch {params.settings:q} {input.allocate:q} {input.marks[0]:q} {output:q}"
        " --workers {threads} --log {log:q}"
