"""What a user reads last when jobs fail: their own messages, not the commands that failed."""

import re
from pathlib import Path

from snakemake.logging import logger

# Lines of a log that are shown where boldly itself has not said what is wrong.
LAST_LINES = 15
# What stands in the log of a job that failed by itself; of one that a signal ended nothing does.
SAYS_WHY = re.compile(r"Traceback|\b\w*(?:Error|Exception)\b|usage: ")
STOPPED = (
    "its log says no reason, as when a signal, the memory limit or the time limit stops a job; its last lines:"
)
FAILED = {}


def own_message(log):
    """What boldly says in a log is wrong with the input, or the last lines of the log."""
    try:
        lines = Path(log).read_text(errors="replace").splitlines()
    except OSError:
        return ["(there is no log)"]
    starts = [number for number, line in enumerate(lines) if line.startswith("boldly: ")]
    if starts:
        return lines[starts[-1] :]
    return [*([] if any(map(SAYS_WHY.search, lines)) else [STOPPED]), *lines[-LAST_LINES:]]


def summary():
    """The messages of all jobs that failed."""
    lines = [f"boldly: {len(FAILED)} job{'s' if len(FAILED) != 1 else ''} failed"]
    for (rule, *logs), _ in FAILED.items():
        for log in logs:
            lines += ["", f"{rule}, {log}:", *(f"  {line}" for line in own_message(log))]
    return "\n".join(lines)


def plain(record):
    """Filter of the log: commands, which are walls of JSON, only where they are asked for; messages at the end."""
    shows_commands = workflow.output_settings.printshellcmds
    if getattr(record, "exception", None) == "RuleException" and "CalledProcessError" in record.getMessage():
        return shows_commands
    if getattr(record, "rule_name", None) and str(record.msg).startswith("Error in rule"):
        FAILED[record.rule_name, *record.log] = True
        record.shellcmd = record.shellcmd if shows_commands else None
    if FAILED and "At least one job did not complete successfully" in str(record.msg):
        record.msg = summary()
    return True


# Jobs that Snakemake starts by itself, on a cluster too, say what they have to say in their log.
if workflow.is_main_process:
    logger.addFilter(plain)
