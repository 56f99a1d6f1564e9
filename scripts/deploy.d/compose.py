"""compose.py: whether the compose file is one, and whether what it names is there.

Types of the Compose Specification read it, and say what they do not know. It ends with 1 if anything is not as it
should be.
"""
import re
import shutil
import subprocess
import sys
import tempfile

import compose_spec
import yaml

from deployed import DEPLOY, RULES

DOCKER = DEPLOY / "docker"
COMPOSE = DOCKER / "compose.yaml"
PINNED = re.compile(r"[^:]+:v?[0-9][^:]*[.-][^:]*")


def faults():
    """What is wrong with the compose file, and with the files beside it."""
    options = compose_spec.PyOptions()
    options.apply_merge = True
    text = COMPOSE.read_text()
    try:
        compose = options.from_yaml(text)
        compose.validate()
    except Exception as error:
        yield f"{COMPOSE.name}: {error}"
        return
    services = yaml.safe_load(text)["services"]
    for name, service in services.items():
        for other in set(service.get("depends_on", {})) - set(services):
            yield f"{name}: there is no service {other}"
        if "build" not in service and not PINNED.fullmatch(service["image"]):
            yield f"{name}: its image has no version: {service['image']}"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith(".") and not (DOCKER / source).exists():
                yield f"{name}: there is no {source}"
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                yield f"{name}: other machines reach {port}"
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DOCKER / "Dockerfile").read_text(), re.M)
    for source in " ".join(copied).split():
        if not (DEPLOY.parent / source).exists():
            yield f"Dockerfile: there is no {source}"
        if f"!{source.split('/')[0]}" not in (DEPLOY.parent / ".dockerignore").read_text().split():
            yield f".dockerignore: keeps {source} out"


def unconfigured():
    """What promtool says of a configuration that is no good. It looks for the rules beside it."""
    for path in (DOCKER / "prometheus.yml", DEPLOY / "prometheus" / "prometheus.yml"):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(path, folder)
            shutil.copy(RULES, folder)
            words = ["promtool", "check", "config", "--lint=all", "--lint-fatal", f"{folder}/{path.name}"]
            ran = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if ran.returncode:
            yield f"{path.parent.name}/{path.name}: {ran.stdout}"


def main():
    found = [*faults(), *unconfigured()]
    for fault in found:
        print(fault)
    for path in (DOCKER / "grafana").glob("*.yaml"):
        yaml.safe_load(path.read_text())
    if not found:
        print("docker: hadolint, compose's types and promtool are content")
    sys.exit(1 if found else 0)


main()
