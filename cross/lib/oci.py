"""Writes an OCI image layout with one image for each architecture and an index over them.

    oci.py OUT ROLE VERSION SECONDS ARCH=PROGRAM=LIBC…

OUT is a folder that is made anew; PROGRAM the agent or gateway for Debian's architecture ARCH, LIBC a folder with Debian's libc for
it; SECONDS the time that all files get. In each image: the program, the C library's parts that it can need, certificates, and a
user. No shell, no package manager. The same input gives the same bytes.

Refs in the layout: VERSION is the index, VERSION-ARCH the image for one architecture.
"""

import gzip
import hashlib
import io
import json
import shutil
import sys
import tarfile
from datetime import datetime, timezone
from pathlib import Path

# The user of the programs, and the owner of their data.
USER = 65532
# Debian's name: name and variant in OCI, folder of libraries, loader.
ARCHITECTURES = {
    "arm64": ("arm64", "v8", "aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1"),
    "armhf": ("arm", "v7", "arm-linux-gnueabihf", "lib/ld-linux-armhf.so.3"),
    "amd64": ("amd64", None, "x86_64-linux-gnu", "lib64/ld-linux-x86-64.so.2"),
}
# What a Rust program links to, and what name look-up loads at run time.
LIBRARIES = ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libresolv.so.2", "libgcc_s.so.1"]
LIBRARIES += ["libnss_dns.so.2", "libnss_files.so.2"]
PORTS = {"agent": ["1883/tcp", "8080/tcp"], "gateway": ["8090/tcp"]}


class Layer:
    """A tar file whose bytes depend on what is in it and nothing else."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.bytes = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.bytes, mode="w", format=tarfile.GNU_FORMAT)
        self.folders = set()

    def add(self, name, kind, mode, owner=0, content=b"", link=""):
        for parent in reversed(Path(name).parents):
            if str(parent) != "." and str(parent) not in self.folders:
                self.folder(str(parent))
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.mtime, entry.uid, entry.gid = kind, mode, self.seconds, owner, owner
        entry.size, entry.linkname = len(content), link
        self.tar.addfile(entry, io.BytesIO(content))

    def folder(self, name, mode=0o755, owner=0):
        self.folders.add(name)
        self.add(name, tarfile.DIRTYPE, mode, owner)

    def file(self, name, content, mode=0o644):
        self.add(name, tarfile.REGTYPE, mode, content=content)

    def done(self):
        """The layer compressed, and the digest of what is in it."""
        self.tar.close()
        plain = self.bytes.getvalue()
        return gzip.compress(plain, 9, mtime=0), digest(plain)


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def base(libc, arch, seconds):
    _, _, libraries, loader = ARCHITECTURES[arch]
    layer = Layer(seconds)
    folder = libc / "lib" / libraries
    for name in LIBRARIES:
        layer.file(f"lib/{libraries}/{name}", (folder / name).resolve().read_bytes())
    layer.file(loader, (folder / Path(loader).name).resolve().read_bytes(), 0o755)
    certificates = sorted((libc / "usr/share/ca-certificates").rglob("*.crt"))
    assert certificates, f"no certificates in {libc}"
    layer.file("etc/ssl/certs/ca-certificates.crt", b"".join(path.read_bytes().rstrip() + b"\n" for path in certificates))
    layer.file("etc/passwd", f"root:x:0:0::/:/\ngodwit:x:{USER}:{USER}::/var/lib/godwit:/\n".encode())
    layer.file("etc/group", f"root:x:0:\ngodwit:x:{USER}:\n".encode())
    layer.file("etc/nsswitch.conf", b"hosts: files dns\n")
    for name in ["libc6", "libgcc-s1", "ca-certificates"]:
        copyright = f"usr/share/doc/{name}/copyright"
        layer.file(copyright, (libc / copyright).resolve().read_bytes())
    layer.folder("tmp", 0o1777)
    layer.folder("var/lib/godwit", 0o750, USER)
    return layer.done()


def program(path, seconds):
    layer = Layer(seconds)
    layer.file(f"usr/bin/{path.name}", path.read_bytes(), 0o755)
    return layer.done()


class Layout:
    def __init__(self, out):
        self.blobs = out / "blobs" / "sha256"
        self.out = out
        shutil.rmtree(out, ignore_errors=True)
        self.blobs.mkdir(parents=True)

    def blob(self, content, kind):
        """Keeps a blob; gives its descriptor."""
        if not isinstance(content, bytes):
            content = json.dumps(content, sort_keys=True).encode()
        name = digest(content)
        (self.blobs / name.removeprefix("sha256:")).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": name, "size": len(content)}

    def image(self, role, version, seconds, arch, path, libc):
        name, variant, _, _ = ARCHITECTURES[arch]
        layers = [base(libc, arch, seconds), program(path, seconds)]
        created = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        config = {
            "created": created,
            "architecture": name,
            "os": "linux",
            "config": {
                "User": f"{USER}:{USER}",
                "Entrypoint": [f"/usr/bin/godwit-{role}"],
                "Env": ["PATH=/usr/bin", f"GODWIT_{role.upper()}_DATA_DIR=/var/lib/godwit"],
                "WorkingDir": "/var/lib/godwit",
                "Volumes": {"/var/lib/godwit": {}},
                "ExposedPorts": {port: {} for port in PORTS[role]},
                "StopSignal": "SIGTERM",
                "Labels": {
                    "org.opencontainers.image.title": f"godwit-{role}",
                    "org.opencontainers.image.version": version,
                    "org.opencontainers.image.licenses": "Apache-2.0",
                },
            },
            "rootfs": {"type": "layers", "diff_ids": [plain for _, plain in layers]},
            "history": [
                {"created": created, "created_by": "C library and certificates of Debian"},
                {"created": created, "created_by": f"godwit-{role} {version}"},
            ],
        }
        if variant:
            config["variant"] = variant
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.blob(config, "config.v1+json"),
            "layers": [self.blob(packed, "layer.v1.tar+gzip") for packed, _ in layers],
        }
        platform = {"os": "linux", "architecture": name} | ({"variant": variant} if variant else {})
        return self.blob(manifest, "manifest.v1+json") | {"platform": platform}

    def index(self, version, images):
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": list(images.values()),
        }
        refs = [(version, self.blob(index, "index.v1+json"))]
        refs += [(f"{version}-{arch}", image) for arch, image in images.items()]
        named = [image | {"annotations": {"org.opencontainers.image.ref.name": ref}} for ref, image in refs]
        (self.out / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": named}, sort_keys=True))
        (self.out / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def main():
    out, role, version, seconds, *parts = sys.argv[1:]
    layout = Layout(Path(out))
    images = {}
    for part in parts:
        arch, path, libc = part.split("=")
        images[arch] = layout.image(role, version, int(seconds), arch, Path(path), Path(libc))
    layout.index(version, images)


main()
