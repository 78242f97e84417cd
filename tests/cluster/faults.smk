"""Jobs that go wrong at the first attempt, as those of the workflow ask for more at the next one."""


include: "../../workflow/rules/slurm.smk"


rule all:
    input:
        "memory.txt",
        "time.txt",
        "cancelled.txt",
        "node.txt",
    localrule: True


rule memory:
    output:
        "memory.txt",
    resources:
        mem_mb=lambda wildcards, attempt: 500 * attempt,
        runtime=5,
    shell:
        """python3 -c "import time; x = bytearray(400_000_000); x[::4096] = b'1' * len(x[::4096]); time.sleep(5)" """
        " && echo {resources.mem_mb} > {output}"


rule time:
    output:
        "time.txt",
    resources:
        mem_mb=500,
        runtime=lambda wildcards, attempt: attempt,
    shell:
        # At the limit of a minute it is not done; what is written is the limit of the job that is.
        "sleep $((100 / {resources.runtime} / {resources.runtime})) && squeue -h -j $SLURM_JOB_ID -o %l > {output}"


rule cancelled:
    output:
        "cancelled.txt",
    resources:
        mem_mb=500,
        runtime=5,
    shell:
        "sleep 10 && echo done > {output}"


rule node:
    output:
        "node.txt",
    resources:
        mem_mb=500,
        runtime=5,
    shell:
        # The node that it comes to first is broken, which Slurm does not know.
        "echo $SLURMD_NODENAME >> nodes && [ $(sort -u nodes | wc -l) = 2 ] && touch {output}"


rule long:
    output:
        "long.txt",
    resources:
        mem_mb=500,
        runtime=5,
    shell:
        "sleep {config[seconds]} && echo done > {output}"
