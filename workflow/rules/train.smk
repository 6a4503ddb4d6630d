# A network, stage by stage.


rule train:
    input:
        lambda wildcards: settings.train_inputs(wildcards.training, wildcards.stage),
    output:
        f"{R}/trainings/{{training}}/{{stage}}.json",
    log:
        f"{R}/logs/train/{{training}}.{{stage}}.log",
    benchmark:
        f"{R}/benchmarks/train/{{training}}.{{stage}}.tsv"
    priority: 1  # before volumes that could be made already: the longest chain of stages decides when a run ends
    conda:
        "../../envs/gpu.yaml"
    threads: lambda wildcards: settings.config.trainings[wildcards.training].threads
    resources:
        mem_mb=8000,
        runtime=1440,
        gpu=0,  # several share each batch; losses differ by the rounding of floats alone
        requeue=0,  # 1: out of wall time, a job of SLURM goes back into the queue by itself
    params:
        settings=lambda wildcards: settings.train(wildcards.training, wildcards.stage),
    shell:
        "emsr train {params.settings:q} {output:q} --processes {resources.gpu}"
        " --runtime {resources.runtime} --requeue {resources.requeue} --log {log:q}"
