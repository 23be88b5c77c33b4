"""What `meson install` installs, and that it works; the CI workflow."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
BUILD = pathlib.Path(os.environ.get("MILLRACE_BUILD", ROOT / "build"))
CONFIG = "etc/millrace/millrace.yml"
FILES = {"usr/local/bin/millrace", "usr/local/share/man/man8/millrace.8",
         "usr/local/share/man/man5/millrace.yml.5", "usr/local/share/millrace/millrace.yml",
         "usr/local/lib/systemd/system/millrace.service", CONFIG}
DIRECTIVES = {"Type=notify", "ExecReload=/bin/kill -HUP $MAINPID", "NoNewPrivileges=yes",
              "ProtectSystem=strict", "SystemCallFilter=@system-service",
              "ExecStart=/usr/local/bin/millrace -c /etc/millrace/millrace.yml"}


def install(destination):
    subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", destination],
                   check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    destination = tmp_path_factory.mktemp("installed")
    install(destination)
    return destination


def test_everything_is_installed(installed):
    assert {str(p.relative_to(installed)) for p in installed.rglob("*") if p.is_file()} == FILES


def test_the_installed_program_accepts_the_installed_configuration(installed):
    program = installed / "usr/local/bin/millrace"
    result = subprocess.run([program, "-t", "-c", installed / CONFIG], capture_output=True, text=True)
    assert result.returncode == 0 and "syntax is ok" in result.stderr
    assert "warning" not in result.stderr
    version = subprocess.run([program, "-V"], capture_output=True, text=True).stderr
    for word in ("epoll", "io_uring", "libyaml", "jansson", "libmicrohttpd"):
        assert word in version


def test_a_configuration_that_is_there_stays(tmp_path):
    (tmp_path / CONFIG).parent.mkdir(parents=True)
    (tmp_path / CONFIG).write_text("mine: {}\n")
    install(tmp_path)
    assert (tmp_path / CONFIG).read_text() == "mine: {}\n"
    default = (tmp_path / "usr/local/share/millrace/millrace.yml").read_text()
    assert default == (ROOT / "conf/millrace.yml").read_text()


def test_the_unit_is_valid(installed, tmp_path):
    unit = (installed / "usr/local/lib/systemd/system/millrace.service").read_text()
    assert DIRECTIVES <= set(unit.splitlines()) and "@" not in unit.replace("@system-service", "")
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    here = tmp_path / "millrace.service" # with paths that exist here
    here.write_text(unit.replace("/usr/local/", f"{installed}/usr/local/")
                    .replace("Documentation=", "#"))
    result = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True)
    complaints = [line for line in result.stderr.splitlines() if "millrace" in line]
    assert result.returncode == 0 and not complaints, result.stderr


@pytest.mark.parametrize("page", ["man8/millrace.8", "man5/millrace.yml.5"])
def test_the_manual_pages_are_valid(installed, page):
    if shutil.which("groff") is None:
        pytest.skip("no groff")
    result = subprocess.run(["groff", "-man", "-Tascii", "-P-cbou", "-ww",
                             installed / "usr/local/share/man" / page], capture_output=True,
                            text=True)
    assert result.stderr == "" and "DESCRIPTION" in result.stdout


def test_the_forge_runs_what_ci_runs():
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    assert "run: .ci/run\n" in workflow
    assert (ROOT / ".ci/run").read_text().endswith("exec ./dev test\n")
