"""The commands that build for boards and load them, with programs that stand for the vendors'."""

import pytest

from boards import build, flash
from boards.board import Board, Command


class Example(Board):
    """A board whose image two tools make, one after the other."""

    name = "example"
    preset = "tiny"
    image = "card.bin"

    def write(self, config, output, clock_mhz):
        output.mkdir(parents=True, exist_ok=True)
        (output / "start.txt").write_text(f"{config.name} at {clock_mhz}")
        return [output / "start.txt"]

    def build_commands(self):
        return [
            Command(("first-tool",), ("start.txt",), "the first suite"),
            Command(("second-tool", "other-name"), ("--fast", "a.o"), "the second suite"),
        ]

    def flash_command(self, image, device):
        which = () if device is None else ("--device", device)
        return Command(("loader",), (*which, str(image)), "the loader's suite")


@pytest.fixture
def example(monkeypatch, tmp_path):
    monkeypatch.setitem(build.BOARDS, "example", Example())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()

    def install(name, status=0):
        tool = tmp_path / "bin" / name
        tool.write_text(f'#!/bin/sh\necho {name} "$@" >> log.txt\nexit {status}\n')
        tool.chmod(0o755)

    return install


def test_missing_tool_is_named_and_all_before_it_is_there(example, tmp_path, capsys):
    example("first-tool")
    out = tmp_path / "out"
    assert build.main(["example", "--out", str(out), "--clock", "99"]) == 3
    assert "'second-tool' not found; it comes with the second suite" in capsys.readouterr().err
    assert (out / "start.txt").read_text() == "tiny at 99.0"
    assert (out / "log.txt").read_text() == "first-tool start.txt\n"
    readme = (out / "README.md").read_text()
    for text in ("`start.txt`", "first-tool start.txt", "second-tool --fast a.o", "card.bin"):
        assert text in readme


def test_tools_run_one_after_the_other_by_any_of_their_names(example, tmp_path, capsys):
    example("first-tool")
    example("other-name")
    assert build.main(["example", "--out", str(tmp_path / "out")]) == 0
    log = (tmp_path / "out" / "log.txt").read_text()
    assert log == "first-tool start.txt\nother-name --fast a.o\n"


def test_tool_that_fails_ends_the_build(example, tmp_path, capsys):
    example("first-tool", status=7)
    example("second-tool")
    assert build.main(["example", "--out", str(tmp_path / "out")]) == 1
    assert "'first-tool' failed with status 7" in capsys.readouterr().err
    assert (tmp_path / "out" / "log.txt").read_text() == "first-tool start.txt\n"


def test_tools_can_be_left_out(example, tmp_path):
    assert build.main(["example", "--out", str(tmp_path / "out"), "--no-tools"]) == 0
    assert (tmp_path / "out" / "README.md").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vcu9000"], "invalid choice: 'vcu9000' (choose from"),
        (["vcu1525", "--preset", "huge"], "no preset 'huge'; choose from: tiny"),
        (["vcu1525", "--clock", "5"], "--clock is 5.0, must be 10 to 500 MHz"),
        (["vcu1525", "--preset", "u250"], "board vcu1525: device of configuration 'u250' is"),
        (["u250"], None),
        (
            ["u200", "--preset", "tiny", "--set", f"memory_bytes={32 << 30}"],
            f"board u200: memory_bytes of configuration 'tiny' is {32 << 30}, must be at most",
        ),
        (
            ["vcu1525", "--set", f"memory_bytes={128 << 30}"],
            f"board vcu1525: memory_bytes of configuration 'vcu1525' is {128 << 30}, must be",
        ),
    ],
)
def test_impossible_request_is_refused(arguments, message, tmp_path, capsys):
    if message is None:
        message = "board u250: device of configuration 'vcu1525' is 'xcvu9p', must be one of"
        arguments = [*arguments, "--preset", "vcu1525"]
    with pytest.raises(SystemExit) as exit_:
        build.main([*arguments, "--out", str(tmp_path / "out")])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("board", "arguments", "expected"),
    [
        ("vcu1525", [], "-source {}/vcu1525_program.tcl -tclargs {}/sat.bit"),
        ("vcu1525", ["--device", "*/0001"], "-tclargs {}/sat.bit */0001"),
        ("u200", [], "xbutil program --user {}/sat.xclbin"),
        ("u250", ["--device", "b3:00.1"], "program --device b3:00.1 --user {}/sat.xclbin"),
    ],
)
def test_flash_says_what_it_would_run(board, arguments, expected, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert flash.main([board, "--dry-run", *arguments]) == 0
    directory = tmp_path / "build" / "boards" / board
    assert capsys.readouterr().out.strip().endswith(expected.replace("{}", str(directory)))


def test_flash_runs_the_loader(example, tmp_path, capsys):
    image = tmp_path / "card.bin"
    with pytest.raises(SystemExit):
        flash.main(["example", "--image", str(image)])
    assert "python -m boards.build example makes it" in capsys.readouterr().err
    image.touch()
    assert flash.main(["example", "--image", str(image)]) == 3
    assert "'loader' not found; it comes with the loader's suite" in capsys.readouterr().err
    example("loader")
    assert flash.main(["example", "--image", str(image), "--device", "7"]) == 0
    assert (tmp_path / "log.txt").read_text() == f"loader --device 7 {image}\n"
    example("loader", status=4)
    assert flash.main(["example", "--image", str(image)]) == 1
