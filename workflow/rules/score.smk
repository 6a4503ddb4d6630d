# What super-resolution was worth, and the page that shows it.


rule score:
    input:
        lr=lambda wildcards: settings.lr(wildcards.volume),
        hr=lambda wildcards: settings.truth(wildcards.volume),
        sr=f"{R}/{{volume}}/sr.json",
    output:
        f"{R}/{{volume}}/scores.json",
    params:
        settings=lambda wildcards: settings.score(wildcards.volume),
    log:
        f"{R}/logs/score/{{volume}}.log",
    benchmark:
        f"{R}/benchmarks/score/{{volume}}.tsv"
    resources:
        mem_mb=4000,
        runtime=120,
    conda:
        "../../envs/cpu.yaml"
    shell:
        "emsr score {params.settings:q} {output:q} --log {log:q}"


rule report:
    input:
        settings.evidence,
    output:
        f"{R}/report.html",
    params:
        settings=lambda wildcards: settings.report(),
    log:
        f"{R}/logs/report.log",
    benchmark:
        f"{R}/benchmarks/report.tsv"
    resources:
        mem_mb=4000,
        runtime=60,
    conda:
        "../../envs/cpu.yaml"
    shell:
        "emsr report {params.settings:q} {output:q} --log {log:q}"
