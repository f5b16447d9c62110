"""Makes a manual page from what a program says of itself.

    man.py SECTION ONE-LINE-DESCRIPTION NAME VERSION DATE COMMAND…  >NAME.SECTION

COMMAND is run with `--help`, and, where that lists commands, with `help COMMAND` for each of them.
"""

import os
import re
import subprocess
import sys


def escaped(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in text.split("\n"))


def helped(command, *arguments):
    # The help shows what a variable is set to, and takes colours from one.
    own = {name: value for name, value in os.environ.items() if not name.startswith(("GODWIT_", "CLICOLOR"))}
    return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True, env=own).stdout.rstrip()


def commands_in(text):
    """The names under `Commands:`."""
    part = re.search(r"^Commands:\n((?:  .*\n?)+)", text, re.MULTILINE)
    names = re.findall(r"^  ([a-z-]+)", part.group(1), re.MULTILINE) if part else []
    return [name for name in names if name != "help"]


def literal(text):
    return f".nf\n{escaped(text)}\n.fi\n"


def main():
    section, about, name, version, date, *command = sys.argv[1:]
    text = helped(command, "--help")
    page = f'.TH {name.upper()} {section} {date} "Godwit {version}"\n'
    page += f".SH NAME\n{escaped(name)} \\- {escaped(about)}\n"
    usage = re.search(r"^Usage: (.*)$", text, re.MULTILINE).group(1)
    page += f".SH SYNOPSIS\n.B {escaped(usage)}\n"
    page += f".SH DESCRIPTION\n{literal(text)}"
    for each in commands_in(text):
        page += f".SH COMMAND {escaped(each.upper())}\n{literal(helped(command, 'help', each))}"
    sys.stdout.write(page)


main()
