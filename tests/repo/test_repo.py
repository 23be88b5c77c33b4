"""Rules for the source tree: layers, headers, format, generated pages."""

import ast
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SRC = ROOT / "src"
BUILD = pathlib.Path(os.environ.get("MILLRACE_BUILD", ROOT / "build"))
FLOORS = {"core": 0, "net": 1, "proto": 1, "route": 1, "config": 2, "upstream": 3, "transfer": 4,
          "session": 5, "proc": 6, "admin": 6, "copy": 7}
# net and proto are on the same layer and may not include each other
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def sources(*suffixes):
    return sorted(p for s in suffixes for p in SRC.rglob(f"*{s}"))


def breaches(path, text):
    folder = path.relative_to(SRC).parts[0]
    if folder not in FLOORS:
        return []
    found = []
    for name in INCLUDE.findall(text):
        other = name.split("/")[0]
        if other != folder and FLOORS.get(other, 99) >= FLOORS[folder]:
            found.append(f"{path.relative_to(ROOT)} includes {name}")
    return found


def test_floors():
    found = [b for p in sources(".c", ".h", ".def") for b in breaches(p, p.read_text())]
    assert not found, "\n".join(found)


def test_the_floor_test_can_fail():
    assert breaches(SRC / "core" / "x.c", '#include "net/loop.h"\n')
    assert breaches(SRC / "net" / "x.c", '#include "proto/proto.h"\n')
    assert breaches(SRC / "proc" / "x.c", '#include "admin/json.h"\n')
    assert not breaches(SRC / "session" / "x.c", '#include "core/list.h"\n')


def references(folder):
    """Which files of a folder use functions and variables of which others, from their objects."""
    owner, needs = {}, {}
    for o in BUILD.glob(f"src/libmillrace.a.p/{folder}_*.o"):
        name = o.name[len(folder) + 1:-len(".c.o")]
        for line in subprocess.check_output(["nm", o], text=True).splitlines():
            kind, symbol = line.split()[-2:]
            if kind == "U":
                needs.setdefault(name, set()).add(symbol)
            elif kind.isupper():
                owner[symbol] = name
    return {name: {owner[s] for s in symbols if s in owner} for name, symbols in needs.items()}


def circles(graph):
    """What is left after the files were removed that need no other, again and again."""
    left = {name: set(others) for name, others in graph.items()}
    while gone := {name for name, others in left.items() if not others & set(left)}:
        left = {name: others - gone for name, others in left.items() if name not in gone}
    return left


def test_upstream_has_no_circle():
    graph = references("upstream")
    assert "backend" in graph["server"]
    assert not circles(graph)


def test_the_circle_test_can_fail():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_every_folder_has_a_floor():
    assert {p.name for p in SRC.iterdir() if p.is_dir()} == set(FLOORS)


@pytest.mark.parametrize("compiler", ["gcc", "clang-14"])
def test_every_header_compiles_alone(compiler, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")

    def compile_one(header):
        unit = tmp_path / (str(header.relative_to(SRC)).replace("/", "_") + ".c")
        unit.write_text(f'#include "{header.relative_to(SRC)}"\n')
        return subprocess.run([compiler, "-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror",
                               "-fsyntax-only", f"-I{SRC}", str(unit)],
                              capture_output=True, text=True)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(compile_one, sources(".h")))
    assert all(r.returncode == 0 for r in results), "\n".join(r.stderr for r in results)


def test_format():
    tool = shutil.which("clang-format-14") or shutil.which("clang-format")
    if tool is None:
        pytest.skip("no clang-format")
    files = sources(".c", ".h") + sorted((ROOT / "tests").rglob("*.[ch]")) + sorted(
        (ROOT / "bench").rglob("*.[ch]")) + sorted((ROOT / "tools").rglob("*.[ch]"))
    result = subprocess.run([tool, "--dry-run", "-Werror", *map(str, files)],
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[:4000]


def test_files_say_what_they_are():
    for p in sources(".c", ".h", ".def"):
        first = p.read_text().splitlines()[:2]
        assert f"{p.name} - " in " ".join(first), p


def test_functions_stay_short():
    long_ones = []
    for p in sources(".c"):
        start = None
        for n, line in enumerate(p.read_text().splitlines(), 1):
            if line == "{":
                start = n
            elif line == "}" and start is not None:
                if n - start > 100:
                    long_ones.append(f"{p.relative_to(ROOT)}:{start} has {n - start} lines")
                start = None
    assert not long_ones, "\n".join(long_ones)


def test_sources_are_all_built():
    listed = set(re.findall(r"'([a-z_/0-9]+\.c)'", (SRC / "meson.build").read_text())) | {"main.c"}
    assert {str(p.relative_to(SRC)) for p in sources(".c")} == listed


def test_sources_are_compiled_once():
    compiled = [c["file"] for c in json.loads((BUILD / "compile_commands.json").read_text())]
    for p in sources(".c"):
        assert sum(f.endswith(f"/src/{p.relative_to(SRC)}") for f in compiled) <= 1, p


def test_the_generated_pages_are_current():
    for tool, page in (("config_reference", "configuration.md"),
                       ("command_reference", "commands.md"),
                       ("metrics_reference", "metrics.md"),
                       ("manual 8", "millrace.8"), ("manual 5", "millrace.yml.5")):
        made = subprocess.check_output([BUILD / "tools" / tool.split()[0], *tool.split()[1:]], text=True)
        assert made == (ROOT / "docs" / page).read_text(), f"run ./dev docs to renew docs/{page}"


def test_the_page_lists_all_globals():
    """Variables in .data and .bss are those of the table in ARCHITECTURE.md."""
    options = json.loads(subprocess.check_output(["meson", "introspect", BUILD, "--buildoptions"]))
    if next(o["value"] for o in options if o["name"] == "b_sanitize") != "none":
        pytest.skip("sanitizers add their own")
    page = (ROOT / "docs/ARCHITECTURE.md").read_text().partition("\n## Globals\n")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`([a-zA-Z_]+)`", "".join(re.findall(r"^\| (`.*?) \|", page, re.M))))
    symbols = subprocess.check_output(["objdump", "-t", BUILD / "millrace"], text=True)
    found = set(re.findall(r" O \.(?:bss|data)\s+\S+\s+(?:\.hidden )?(\w+)", symbols))
    compilers = {"__dso_handle", "__TMC_END__", "completed"}
    assert found - compilers == listed


@pytest.mark.parametrize("fault", sorted((ROOT / "tests").glob("*/faults/*.patch")), ids=lambda p: p.stem)
def test_faults_apply(fault):
    """`./dev sim --faults` applies them; an edit nearby may break a patch."""
    result = subprocess.run(["patch", "-p1", "--dry-run", "--directory", ROOT, "--input", fault],
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_every_defect_of_the_predecessors_is_accounted_for():
    page = (ROOT / "docs" / "defects.md").read_text()
    rows = dict(re.findall(r"^\| (D\d+) \|.*\| (.*) \|$", page, re.M))
    assert {f"D{i}" for i in range(1, 33)} <= set(rows)
    tests = "\n".join(p.read_text() for p in (ROOT / "tests").rglob("*.[cp]*") if p.is_file() and
                      p.suffix in (".c", ".py"))
    for number, cell in rows.items():
        named = re.findall(r"`([a-z0-9_]+)`", cell)
        assert named or cell.startswith("cannot apply"), number
        for name in named:
            assert re.search(rf"\b{name}\b", tests), f"{number}: there is no test {name}"


MEASURES = {"rss_kb", "cpu_seconds"}


def measuring_without_mark(text):
    """Tests that call one of MEASURES but are not marked to run alone."""
    return [f.name for f in ast.parse(text).body
            if isinstance(f, ast.FunctionDef) and f.name.startswith("test_")
            and MEASURES & {n.func.id for n in ast.walk(f)
                            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
            and "pytest.mark.alone" not in map(ast.unparse, f.decorator_list)]


def test_what_measures_runs_alone():
    for p in (ROOT / "tests" / "integration").glob("test_*.py"):
        assert measuring_without_mark(p.read_text()) == [], p.name
    test = "def test_x():\n    assert rss_kb(1) < 2\n"
    assert measuring_without_mark(test) == ["test_x"]
    assert measuring_without_mark("@pytest.mark.alone\n" + test) == []


STUB = """#!/bin/bash
[[ $0 == *dpkg-query ]] && echo "install ok installed" && exit
[[ $* == -V ]] && printf '  epoll  available\\n  io_uring  not available: no\\n' >&2 && exit
echo "${0##*/} $*" >>"$CALLS"
echo "said by ${0##*/}"
(($(wc -l <"$CALLS") != FAILING))
"""


def test_dev_test_fails_with_any_of_its_steps(tmp_path):
    """Runs a copy of ./dev with stubs for its tools, and makes each step fail in turn."""
    shutil.copy(ROOT / "dev", tmp_path)
    tools, calls = tmp_path / "tools", tmp_path / "calls"
    for name in (*(f"tools/{t}" for t in ("dpkg-query", "meson", "ninja", "npm", "python")),
                 "build/millrace", "build-asan/tests/sim/sim_stub", "tests/sim/find_faults"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(STUB)
        (tmp_path / name).chmod(0o755)
    for name in ("memjs", "ioredis", "redis"):
        (tmp_path / "build/npm/node_modules" / name).mkdir(parents=True)

    def dev_test(failing):
        calls.write_text("")
        out = subprocess.run([tmp_path / "dev", "test"], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, timeout=60, env={
                                 "PATH": f"{tools}:/usr/bin:/bin", "PYTHON": str(tools / "python"),
                                 "CALLS": str(calls), "FAILING": str(failing)})
        return out, calls.read_text().splitlines()

    whole, steps = dev_test(0)
    assert whole.returncode == 0 and whole.stdout.endswith("\nsaid by python\n"), whole.stdout
    assert sum(step.startswith("python -m pytest") for step in steps) >= 5, steps
    for n in range(1, len(steps) + 1):
        failed, done = dev_test(n)
        assert failed.returncode != 0 and len(done) == n, (steps[n - 1], failed.stdout)
