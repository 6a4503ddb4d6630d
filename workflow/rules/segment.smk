# Image to segments: affinities job by job, fragments job by job, one agglomeration, a threshold, segments.


rule allocate_affinities:
    input:
        image=lambda wildcards: segmenting.image(
            wildcards.volume, wildcards.segmentation
        ),
        card=lambda wildcards: segmenting.card(wildcards.volume, wildcards.segmentation),
    output:
        f"{R}/{{volume}}/segmentations/{{segmentation}}/affinities/allocate.json",
    log:
        f"{R}/logs/allocate_affinities/{{volume}}.{{segmentation}}.log",
    benchmark:
        f"{R}/benchmarks/allocate_affinities/{{volume}}.{{segmentation}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=lambda wildcards: segmenting.allocate_affinities(
            wildcards.volume, wildcards.segmentation
        ),
    shell:
        "emsr allocate-affinities {params.settings:q} {input.image:q} {input.card:q} {output:q}"
        " --log {log:q}"


rule affinities:
    input:
        f"{R}/{{volume}}/segmentations/{{segmentation}}/affinities/allocate.json",
    output:
        f"{R}/{{volume}}/segmentations/{{segmentation}}/affinities/jobs/{{scatteritem}}.json",
    log:
        f"{R}/logs/affinities/{{volume}}.{{segmentation}}.{{scatteritem}}.log",
    benchmark:
        f"{R}/benchmarks/affinities/{{volume}}.{{segmentation}}.{{scatteritem}}.tsv"
    conda:
        "../../envs/gpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=lambda wildcards, threads: 4000 + 2000 * threads,
        runtime=240,
    params:
        settings=lambda wildcards: segmenting.affinities(
            wildcards.volume, wildcards.segmentation
        ),
    shell:
        "emsr affinities {params.settings:q} {input:q} {wildcards.scatteritem} {output:q}"
        " --workers {threads} --log {log:q}"


rule prove_affinities:
    input:
        allocate=f"{R}/{{volume}}/segmentations/{{segmentation}}/affinities/allocate.json",
        marks=lambda wildcards: segmenting.marks(
            wildcards.volume, wildcards.segmentation, "affinities"
        )
        or gather.job(
            segmenting.path(
                wildcards.volume,
                wildcards.segmentation,
                "affinities",
                "jobs",
                "{scatteritem}.json",
            )
        ),
    output:
        f"{R}/{{volume}}/segmentations/{{segmentation}}/affinities.json",
    log:
        f"{R}/logs/prove_affinities/{{volume}}.{{segmentation}}.log",
    benchmark:
        f"{R}/benchmarks/prove_affinities/{{volume}}.{{segmentation}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=lambda wildcards, threads: 1000 + 1500 * threads,
        runtime=240,
    params:
        settings=lambda wildcards: segmenting.prove_affinities(
            wildcards.volume, wildcards.segmentation
        ),
    shell:
        "emsr prove-affinities {params.settings:q} {input.allocate:q} {input.marks[0]:q} {output:q}"
        " --workers {threads} --log {log:q}"


rule allocate_fragments:
    input:
        f"{R}/{{volume}}/segmentations/{{segmentation}}/affinities.json",
    output:
        f"{R}/{{volume}}/segmentations/{{segmentation}}/fragments/allocate.json",
    log:
        f"{R}/logs/allocate_fragments/{{volume}}.{{segmentation}}.log",
    benchmark:
        f"{R}/benchmarks/allocate_fragments/{{volume}}.{{segmentation}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        settings=lambda wildcards: segmenting.allocate_fragments(
            wildcards.volume, wildcards.segmentation
        ),
    shell:
        "emsr allocate-fragments {params.settings:q} {input:q} {output:q}"
        " --log {log:q}"


rule fragments:
    input:
        f"{R}/{{volume}}/segmentations/{{segmentation}}/fragments/allocate.json",
    output:
        f"{R}/{{volume}}/segmentations/{{segmentation}}/fragments/jobs/{{scatteritem}}.json",
    log:
        f"{R}/logs/fragments/{{volume}}.{{segmentation}}.{{scatteritem}}.log",
    benchmark:
        f"{R}/benchmarks/fragments/{{volume}}.{{segmentation}}.{{scatteritem}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=lambda wildcards, threads: 1000 + 1500 * threads,
        runtime=240,
    params:
        settings=lambda wildcards: segmenting.fragments(
            wildcards.volume, wildcards.segmentation
        ),
    shell:
        "emsr fragments {params.settings:q} {input:q} {wildcards.scatteritem} {output:q}"
        " --workers {threads} --log {log:q}"


rule prove_fragments:
    input:
        allocate=f"{R}/{{volume}}/segmentations/{{segmentation}}/fragments/allocate.json",
        marks=lambda wildcards: segmenting.marks(
            wildcards.volume, wildcards.segmentation, "fragments"
        )
        or gather.job(
            segmenting.path(
                wildcards.volume,
                wildcards.segmentation,
                "fragments",
                "jobs",
                "{scatteritem}.json",
            )
        ),
    output:
        f"{R}/{{volume}}/segmentations/{{segmentation}}/fragments.json",
    log:
        f"{R}/logs/prove_fragments/{{volume}}.{{segmentation}}.log",
    benchmark:
        f"{R}/benchmarks/prove_fragments/{{volume}}.{{segmentation}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=lambda wildcards, threads: 1000 + 1500 * threads,
        runtime=240,
    params:
        settings=lambda wildcards: segmenting.prove_fragments(
            wildcards.volume, wildcards.segmentation
        ),
    shell:
        "emsr prove-fragments {params.settings:q} {input.allocate:q} {input.marks[0]:q} {output:q}"
        " --workers {threads} --log {log:q}"


rule agglomerate:
    input:
        fragments=f"{R}/{{volume}}/segmentations/{{segmentation}}/fragments.json",
        affinities=f"{R}/{{volume}}/segmentations/{{segmentation}}/affinities.json",
    output:
        f"{R}/{{volume}}/segmentations/{{segmentation}}/agglomeration.json",
    log:
        f"{R}/logs/agglomerate/{{volume}}.{{segmentation}}.log",
    benchmark:
        f"{R}/benchmarks/agglomerate/{{volume}}.{{segmentation}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=lambda wildcards, threads: 4000 + 1500 * threads,
        runtime=1440,
    params:
        settings=lambda wildcards: segmenting.agglomerate(
            wildcards.volume, wildcards.segmentation
        ),
    shell:
        "emsr agglomerate {params.settings:q} {input.fragments:q} {output:q}"
        " --workers {threads} --memory-mb {resources.mem_mb} --log {log:q}"


rule choose_threshold:
    input:
        agglomeration=f"{R}/{{volume}}/segmentations/{{segmentation}}/agglomeration.json",
        labels=lambda wildcards: segmenting.truth(
            wildcards.volume, wildcards.segmentation
        ),
    output:
        f"{R}/{{volume}}/segmentations/{{segmentation}}/threshold.json",
    log:
        f"{R}/logs/choose_threshold/{{volume}}.{{segmentation}}.log",
    benchmark:
        f"{R}/benchmarks/choose_threshold/{{volume}}.{{segmentation}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=lambda wildcards, threads: 1000 + 1500 * threads,
        runtime=240,
    params:
        settings=lambda wildcards: segmenting.choose_threshold(
            wildcards.volume, wildcards.segmentation
        ),
    shell:
        "emsr choose-threshold {params.settings:q} {input.agglomeration:q} {output:q}"
        " --workers {threads} --memory-mb {resources.mem_mb} --log {log:q}"


rule segment:
    input:
        agglomeration=f"{R}/{{volume}}/segmentations/{{segmentation}}/agglomeration.json",
        threshold=f"{R}/{{volume}}/segmentations/{{segmentation}}/threshold.json",
    output:
        f"{R}/{{volume}}/segmentations/{{segmentation}}/segments.json",
    log:
        f"{R}/logs/segment/{{volume}}.{{segmentation}}.log",
    benchmark:
        f"{R}/benchmarks/segment/{{volume}}.{{segmentation}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=lambda wildcards, threads: 1000 + 1500 * threads,
        runtime=240,
    params:
        settings=lambda wildcards: segmenting.segments(),
    shell:
        "emsr segment {params.settings:q} {input.agglomeration:q} {input.threshold:q} {output:q}"
        " --workers {threads} --memory-mb {resources.mem_mb} --log {log:q}"


rule score_segments:
    input:
        lambda wildcards: segmenting.scored(wildcards.volume),
    output:
        f"{R}/{{volume}}/segmentation.json",
    log:
        f"{R}/logs/score_segments/{{volume}}.log",
    benchmark:
        f"{R}/benchmarks/score_segments/{{volume}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=lambda wildcards, threads: 2000 + 2000 * threads,
        runtime=240,
    params:
        settings=lambda wildcards: segmenting.score_segments(wildcards.volume),
    shell:
        "emsr score-segments {params.settings:q} {output:q} --workers {threads} --log {log:q}"


rule discard:
    input:
        segments=f"{R}/{{volume}}/segmentations/{{segmentation}}/segments.json",
        scores=lambda wildcards: segmenting.scores(wildcards.volume),
    output:
        f"{R}/{{volume}}/segmentations/{{segmentation}}/removed.json",
    log:
        f"{R}/logs/discard/{{volume}}.{{segmentation}}.log",
    benchmark:
        f"{R}/benchmarks/discard/{{volume}}.{{segmentation}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: settings.config.workers
    resources:
        mem_mb=lambda wildcards, threads: 1000 + 1500 * threads,
        runtime=240,
    params:
        settings=lambda wildcards: segmenting.discard(wildcards.volume),
    shell:
        "emsr discard {params.settings:q} {input.segments:q} {output:q} --workers {threads} --log {log:q}"
