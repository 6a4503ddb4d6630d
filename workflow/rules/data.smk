# Sources to canonical volumes, hr to lr.


rule grow:
    output:
        f"{R}/{{volume}}/tissue.h5",
    params:
        settings=lambda wildcards: settings.grow(wildcards.volume),
    log:
        f"{R}/logs/grow/{{volume}}.log",
    benchmark:
        f"{R}/benchmarks/grow/{{volume}}.tsv"
    resources:
        mem_mb=4000,
        runtime=30,
    conda:
        "../../envs/cpu.yaml"
    shell:
        "emsr grow {params.settings:q} {output:q} --log {log:q}"


rule ingest:
    input:
        lambda wildcards: settings.source(wildcards.volume, wildcards.image),
    output:
        f"{R}/{{volume}}/{{image}}.json",
    params:
        settings=lambda wildcards: settings.ingest(wildcards.volume, wildcards.image),
    log:
        f"{R}/logs/ingest/{{volume}}.{{image}}.log",
    benchmark:
        f"{R}/benchmarks/ingest/{{volume}}.{{image}}.tsv"
    threads: settings.config.workers
    resources:
        mem_mb=4000,
        runtime=240,
    conda:
        "../../envs/cpu.yaml"
    shell:
        "emsr ingest {params.settings:q} {output:q} --workers {threads} --log {log:q}"


rule degrade:
    input:
        f"{R}/{{volume}}/hr.json",
    output:
        f"{R}/{{volume}}/lr_x{{scale}}.json",
    params:
        settings=lambda wildcards: settings.degrade(wildcards.volume, wildcards.scale),
    log:
        f"{R}/logs/degrade/{{volume}}.x{{scale}}.log",
    benchmark:
        f"{R}/benchmarks/degrade/{{volume}}.x{{scale}}.tsv"
    threads: settings.config.workers
    resources:
        mem_mb=4000,
        runtime=240,
    conda:
        "../../envs/cpu.yaml"
    shell:
        "emsr degrade {params.settings:q} {input:q} {output:q} --workers {threads} --log {log:q}"
