"""Runs a command as Docker starts one in a container, as far as system calls go: under Docker's default
seccomp profile (docker/profiles/seccomp/default.json), without no_new_privs, as the user nobody.

    dockers_profile.py PROFILE COMMAND [ARGUMENT...]
"""

import json
import os
import platform
import sys

import seccomp

# What Docker leaves a container (docs.docker.com, "Runtime privilege and Linux capabilities").
CAPABILITIES = {
    "CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP",
    "CAP_SETUID", "CAP_SYS_CHROOT",
}
NOBODY = 65534
OPERATORS = {
    "SCMP_CMP_EQ": seccomp.EQ,
    "SCMP_CMP_NE": seccomp.NE,
    "SCMP_CMP_MASKED_EQ": seccomp.MASKED_EQ,
}


def kernel():
    return tuple(int(number) for number in platform.release().split("-")[0].split(".")[:2])


def applies(rule):
    """Whether a rule of the profile is one for such a container on this machine."""
    wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
    if set(wanted.get("caps") or []) - CAPABILITIES or set(unwanted.get("caps") or []) & CAPABILITIES:
        return False
    machines = {"amd64", "x86", "x32"}
    if wanted.get("arches") and not machines & set(wanted["arches"]):
        return False
    if machines & set(unwanted.get("arches") or []):
        return False
    least = wanted.get("minKernel")
    return least is None or kernel() >= tuple(int(number) for number in least.split("."))


def argument(described):
    operator, value = OPERATORS[described["op"]], described["value"]
    if described["op"] == "SCMP_CMP_MASKED_EQ":
        return seccomp.Arg(described["index"], operator, value, described.get("valueTwo", 0))
    return seccomp.Arg(described["index"], operator, value)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        profile = json.load(file)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    filtered = seccomp.SyscallFilter(seccomp.ERRNO(profile.get("defaultErrnoRet", 1)))
    filtered.add_arch(seccomp.Arch.X86)
    filtered.set_attr(seccomp.Attr.CTL_NNP, 0)
    allowed = 0
    for rule in profile["syscalls"]:
        if not applies(rule):
            continue
        # clone3 is answered by ENOSYS, so that libraries fall back on clone.
        is_allowed = rule["action"] == "SCMP_ACT_ALLOW"
        action = seccomp.ALLOW if is_allowed else seccomp.ERRNO(rule["errnoRet"])
        for name in rule["names"]:
            try:
                filtered.add_rule(action, name, *map(argument, rule.get("args") or []))
                allowed += is_allowed
            except (OSError, RuntimeError):
                pass  # Unknown to this machine's library: refused.
    assert allowed > 200, allowed
    filtered.load()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    os.execvp(sys.argv[2], sys.argv[2:])


main()
