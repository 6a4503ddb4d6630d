# A network, stage by stage.


rule train:
    input:
        lambda wildcards: settings.train_inputs(wildcards.training, wildcards.stage),
    output:
        f"{R}/trainings/{{training}}/{{stage}}.json",
    params:
        settings=lambda wildcards: settings.train(wildcards.training, wildcards.stage),
    log:
        f"{R}/logs/train/{{training}}.{{stage}}.log",
    benchmark:
        f"{R}/benchmarks/train/{{training}}.{{stage}}.tsv"
    threads: lambda wildcards: settings.config.trainings[wildcards.training].threads
    resources:
        mem_mb=8000,
        runtime=1440,
    conda:
        "../../envs/gpu.yaml"
    shell:
        "emsr train {params.settings:q} {output:q} --log {log:q}"
