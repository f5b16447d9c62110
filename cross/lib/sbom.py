"""Writes a CycloneDX 1.5 bill of materials of what is linked into our programs for a target.

    sbom.py TARGET PACKAGE…  >sbom.cdx.json

The crates that PACKAGE… need at run time for TARGET (`cargo tree`), with version, licence and the checksum in Cargo.lock, and which
needs which (`cargo metadata`). Macros and what build scripts and tests need are left out. The same commit gives the same bytes.
"""

import json
import re
import subprocess
import sys
import urllib.parse
import uuid


def metadata(target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def linked(target, names):
    """Name and version of each crate that is built into PACKAGE…: `cargo metadata` knows the features of the whole workspace only."""
    command = ["cargo", "tree", "--locked", "--target", target, "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]
    for name in names:
        command += ["-p", name]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {(words[0], words[1].removeprefix("v")) for words in map(str.split, lines) if words}


def checksums():
    found = {}
    with open("Cargo.lock", encoding="utf-8") as file:
        for package in file.read().split("[[package]]")[1:]:
            keys = dict(re.findall(r'^(\w+) = "(.*)"$', package, re.MULTILINE))
            found[keys["name"], keys["version"]] = keys.get("checksum")
    return found


def needed(nodes, roots, built):
    """Ids of all that `roots` need at run time, and for each what it needs itself."""
    edges, waiting = {}, list(roots)
    while waiting:
        here = waiting.pop()
        if here in edges:
            continue
        normal = {d["pkg"] for d in nodes[here]["deps"] if any(kind["kind"] is None for kind in d["dep_kinds"])} & built
        edges[here] = sorted(normal)
        waiting += normal
    return edges


def main():
    target, *names = sys.argv[1:]
    data = metadata(target)
    packages = {package["id"]: package for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    roots = [id for id, package in packages.items() if package["name"] in names and package["source"] is None]
    assert len(roots) == len(names), f"not all of {names} are packages here"
    crates = linked(target, names)
    built = {id for id, package in packages.items() if (package["name"], package["version"]) in crates}
    edges = needed(nodes, roots, built)
    sums = checksums()

    def purl(id):
        return f"pkg:cargo/{packages[id]['name']}@{urllib.parse.quote(packages[id]['version'], safe='')}"

    def component(id):
        package = packages[id]
        shown = {
            "type": "application" if id in roots else "library",
            "bom-ref": purl(id),
            "name": package["name"],
            "version": package["version"],
            "purl": purl(id),
        }
        if package["license"]:
            # Old manifests wrote `/` for OR.
            shown["licenses"] = [{"expression": re.sub(r" */ *", " OR ", package["license"])}]
        elif package["license_file"]:
            shown["licenses"] = [{"license": {"name": f"see {package['license_file']} in the crate"}}]
        checksum = sums.get((package["name"], package["version"]))
        if checksum:
            shown["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        return shown

    version = packages[roots[0]]["version"]
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": "godwit", "name": "godwit", "version": version},
            "properties": [{"name": "godwit:target", "value": target}],
        },
        "components": [component(id) for id in sorted(edges, key=purl)],
        "dependencies": [{"ref": "godwit", "dependsOn": sorted(purl(id) for id in roots)}]
        + [{"ref": purl(id), "dependsOn": [purl(d) for d in edges[id]]} for id in sorted(edges, key=purl)],
    }
    content = json.dumps(bom, sort_keys=True)
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"
    json.dump(bom, sys.stdout, indent=1)
    print()


main()
