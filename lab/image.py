"""The guest's kernel and initramfs, built once per machine from Debian's kernel, busybox and e2fsprogs."""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.paths import IMAGES
from lab.system import TIED_FAMILY, LabError, run, wait_until

KERNEL_PACKAGE = "linux-image-cloud-amd64"
INIT = Path(__file__).with_name("init")
BUSYBOX = Path("/bin/busybox")
E2FSPROGS = (Path("/sbin/mke2fs"), Path("/sbin/resize2fs"))
BUILD_PREFIX = ".build-"

# In the order of need: each is loaded after what it depends on.
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_balloon", "virtio-rng", "button", "evdev")


@dataclass(frozen=True)
class Image:
    """What a domain boots from."""

    kernel: Path
    initrd: Path


def image() -> Image:
    """Where the image is, or will be."""
    return Image(kernel=IMAGES / "vmlinuz", initrd=IMAGES / "initrd.img")


def build_image() -> Image:
    """Build what is missing or out of date. The caller holds the lab's lock."""
    built = image()
    stamp = IMAGES / "initrd.stamp"
    modules = IMAGES / "modules"
    if not (built.kernel.exists() and modules.exists()):
        unpack_kernel(built.kernel, modules, MODULES)
    fingerprint = _fingerprint(modules)
    if not (built.initrd.exists() and stamp.exists() and stamp.read_text() == fingerprint):
        build_initrd(built.initrd, modules, INIT, E2FSPROGS)
        stamp.write_text(fingerprint)
    return built


def sweep_builds() -> None:
    """Remove what a killed build left. The caller holds the lab's lock, so no build is running."""
    for left in IMAGES.glob(f"{BUILD_PREFIX}*"):
        # Again and again: the programs of a killed build take a moment to die.
        def removed(directory: Path = left) -> bool:
            shutil.rmtree(directory, ignore_errors=True)
            return not directory.exists()

        if not wait_until(removed, timeout=60):
            raise LabError(f"cannot remove {left}, which a killed build left behind")


@contextmanager
def build_directory() -> Iterator[Path]:
    """A place to build in, on the same file system, so that the result appears by one rename."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    sweep_builds()
    with tempfile.TemporaryDirectory(prefix=BUILD_PREFIX, dir=IMAGES) as directory:
        yield Path(directory)


def unpack_kernel(kernel: Path, modules: Path, wanted: Sequence[str]) -> None:
    """Take the kernel and the modules that are wanted out of Debian's package without installing it.

    Installing would touch /boot and the boot loader of the machine that only wants to run a test.
    """
    with build_directory() as build:
        found = re.search(r"Depends: (linux-image-\S+)", run(["apt-cache", "depends", KERNEL_PACKAGE]))
        if found is None:
            raise LabError(f"apt does not know {KERNEL_PACKAGE}: run 'apt-get update' first")
        download = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", found[1]]
        run(["env", "--chdir", str(build), *download], timeout=300, tie=TIED_FAMILY)
        (package,) = build.glob("*.deb")
        tree = build / "tree"
        run(["dpkg-deb", "--extract", str(package), str(tree)], tie=TIED_FAMILY)
        (vmlinuz,) = tree.glob("boot/vmlinuz-*")
        version = vmlinuz.name.removeprefix("vmlinuz-")
        picked = build / "modules"
        picked.mkdir()
        run(["depmod", "-b", str(tree), version])
        for number, module in enumerate(_in_load_order(tree, version, wanted)):
            shutil.copy(module, picked / f"{number:02}-{module.name}")
        if modules.exists():
            shutil.rmtree(modules)
        picked.rename(modules)
        vmlinuz.rename(kernel)


def _in_load_order(tree: Path, version: str, wanted: Sequence[str]) -> list[Path]:
    """The modules' files, each after those it needs."""
    files: dict[Path, None] = {}
    for module in wanted:
        for line in run(["modprobe", "-d", str(tree), "-S", version, "--show-depends", module]).splitlines():
            if line.startswith("insmod "):
                files[Path(line.split()[1])] = None
    return list(files)


def _fingerprint(modules: Path) -> str:
    """Changes when anything that goes into the initramfs does."""
    digest = hashlib.sha256()
    for source in (INIT, Path(__file__), BUSYBOX, *E2FSPROGS, *sorted(modules.iterdir())):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def build_initrd(initrd: Path, modules: Path, init: Path, programs: Sequence[Path]) -> None:
    """Lay out a root file system with busybox and these programs, and pack it; uncompressed, because emulation unpacks
    slowly."""
    with build_directory() as build:
        root = build / "root"
        for directory in ("bin", "sbin", "dev", "proc", "sys", "disk", "tmp"):
            (root / directory).mkdir(parents=True)
        shutil.copy(BUSYBOX, root / "bin/busybox")
        own = {program.name for program in programs}
        for applet in set(run([str(BUSYBOX), "--list"]).split()) - own - {"busybox"}:
            (root / "bin" / applet).symlink_to("busybox")
        for program in programs:
            _copy_with_libraries(program, root)
        shutil.copytree(modules, root / "modules")
        shutil.copy(init, root / "init")
        (root / "init").chmod(0o755)
        packed = build / "initrd"
        names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
        pack = ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0", "-O", str(packed)]
        run(["env", "--chdir", str(root), *pack], stdin=names)
        packed.rename(initrd)


def _copy_with_libraries(program: Path, root: Path) -> None:
    """Copy a program and the shared libraries it is linked with."""
    wanted = re.findall(r"(/\S+) \(0x", run(["ldd", str(program)]))
    for file in (program, *map(Path, wanted)):
        target = root / file.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
