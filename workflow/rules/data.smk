# Sources to canonical volumes, hr to lr, hr on lr.


rule grow:
    output:
        f"{R}/{{volume}}/tissue.h5",
    log:
        f"{R}/logs/grow/{{volume}}.log",
    benchmark:
        f"{R}/benchmarks/grow/{{volume}}.tsv"
    priority: 2  # before trainings that could start already: others wait for these
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=lambda wildcards: settings.grow(wildcards.volume),
    shell:
        "emsr grow {params.settings:q} {output:q} --log {log:q}"


rule ingest:
    input:
        lambda wildcards: settings.source(wildcards.volume, wildcards.image),
    output:
        f"{R}/{{volume}}/{{image}}.json",
    log:
        f"{R}/logs/ingest/{{volume}}.{{image}}.log",
    benchmark:
        f"{R}/benchmarks/ingest/{{volume}}.{{image}}.tsv"
    priority: 2  # before trainings that could start already: others wait for these
    conda:
        "../../envs/cpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=lambda wildcards, threads: 1000 + 1500 * threads,
        runtime=240,
    params:
        settings=lambda wildcards: settings.ingest(wildcards.volume, wildcards.image),
    shell:
        "emsr ingest {params.settings:q} {output:q} --workers {threads} --log {log:q}"


rule degrade:
    input:
        hr=f"{R}/{{volume}}/hr.json",
        noise=lambda wildcards: settings.noise_image(wildcards.volume),
    output:
        f"{R}/{{volume}}/lr_x{{scale}}.json",
    log:
        f"{R}/logs/degrade/{{volume}}.x{{scale}}.log",
    benchmark:
        f"{R}/benchmarks/degrade/{{volume}}.x{{scale}}.tsv"
    priority: 2  # before trainings that could start already: others wait for these
    conda:
        "../../envs/cpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=lambda wildcards, threads: 1000 + 1500 * threads,
        runtime=240,
    params:
        settings=lambda wildcards: settings.degrade(wildcards.volume, wildcards.scale),
    shell:
        "emsr degrade {params.settings:q} {input.hr:q} {output:q} --workers {threads} --log {log:q}"


rule register:
    input:
        lr=f"{R}/{{volume}}/lr.json",
        hr=f"{R}/{{volume}}/hr.json",
    output:
        f"{R}/{{volume}}/hr_registered.json",
    log:
        f"{R}/logs/register/{{volume}}.log",
    benchmark:
        f"{R}/benchmarks/register/{{volume}}.tsv"
    priority: 2  # before trainings that could start already: others wait for these
    conda:
        "../../envs/cpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=lambda wildcards, threads: 2000 + 1500 * threads,
        runtime=720,
    params:
        settings=lambda wildcards: settings.register(wildcards.volume),
    shell:
        "emsr register {params.settings:q} {input.lr:q} {input.hr:q} {output:q} --workers {threads} --log {log:q}"


rule register_labels:
    input:
        labels=f"{R}/{{volume}}/labels.json",
        registered=f"{R}/{{volume}}/hr_registered.json",
    output:
        f"{R}/{{volume}}/labels_registered.json",
    log:
        f"{R}/logs/register_labels/{{volume}}.log",
    benchmark:
        f"{R}/benchmarks/register_labels/{{volume}}.tsv"
    priority: 2  # before trainings that could start already: others wait for these
    conda:
        "../../envs/cpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=lambda wildcards, threads: 1000 + 1500 * threads,
        runtime=240,
    params:
        settings=lambda wildcards: settings.register_labels(),
    shell:
        "emsr register-labels {params.settings:q} {input.labels:q} {input.registered:q} {output:q}"
        " --workers {threads} --log {log:q}"


rule enlarge:
    input:
        lambda wildcards: settings.image(
            wildcards.volume, settings.lr_image(wildcards.volume, wildcards.scale)
        ),
    output:
        f"{R}/{{volume}}/bicubic_x{{scale}}.json",
    log:
        f"{R}/logs/enlarge/{{volume}}.x{{scale}}.log",
    benchmark:
        f"{R}/benchmarks/enlarge/{{volume}}.x{{scale}}.tsv"
    priority: 2  # before trainings that could start already: others wait for these
    conda:
        "../../envs/cpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        settings=lambda wildcards: settings.enlarge(wildcards.scale),
    shell:
        "emsr enlarge {params.settings:q} {input:q} {output:q} --workers {threads} --log {log:q}"
