#!/usr/bin/env bash
# Make or update the environment .venv: install.sh run|train|test; each holds those before it; or
# docs, for the site of the documentation alone. What
# they hold is in setup.py, in which versions in constraints.txt. Does nothing when up to date.
# A sourced ROS 2 installation is used where there is one, the rclpy wheels of PyPI elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=${1:-}
case $tools in
    run) holders=(run train test) extras=demo,microphone,view ;;
    train) holders=(train test) extras=demo,microphone,view,train,lab,lerobot,rl ;;
    test) holders=(test) extras=demo,microphone,view,train,lab,lerobot,rl,arm,test,lint,docs ;;
    docs) holders=(docs test) extras=docs ;;
    *) echo "usage: requirements/install.sh run|train|test|docs" >&2; exit 2 ;;
esac
wheels=${ROS_WHEELS:-jazzy}
venv=.venv

say() { echo "mm_perception: $*" >&2; }
fail() { say "error: $*"; exit 2; }

# A ROS 2 installation is tied to the Python that it was built for; PyPI has wheels for some.
sourced() { [[ -n ${ROS_DISTRO:-} ]] && "$1" -c 'import rclpy' 2>/dev/null; }
between() { "$1" -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $2))" 2>/dev/null; }
supported() { between "$1" 13 || { between "$1" 99 && sourced "$1"; }; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.12 python3.11 python3.13 python3.10; do
        if supported "$candidate"; then echo "$candidate"; return; fi
    done
    fail "no Python 3.10 to 3.13 found, for which PyPI has rclpy wheels; name one (make demo" \
        "PYTHON=/path/to/python3), or source ROS 2: Lyrical and its Python 3.14 come only that way"
}

python=$(find_python)
if sourced "$python"; then
    source_of_ros="ROS 2 $ROS_DISTRO, as sourced"
    venv_options=(--system-site-packages)
    wheel_files=()
else
    if [[ -n ${ROS_DISTRO:-} && ! -d $venv ]]; then
        say "ROS 2 $ROS_DISTRO is sourced, but $python cannot import its rclpy: using wheels;" \
            "PYTHON=/path/to/python3 names another"
    fi
    [[ $(uname -sm) == 'Linux x86_64' ]] || fail "PyPI has no rclpy wheels for $(uname -sm):" \
        "install ROS 2 Jazzy or Lyrical, source its setup.bash, then run this again"
    [[ -f requirements/ros-$wheels.txt ]] || fail "no wheels for ROS_WHEELS=$wheels:" \
        "choose from $(basename -s .txt requirements/ros-*.txt | sed 's/ros-//' | paste -sd ' ')"
    source_of_ros="ROS 2 $wheels, wheels from PyPI"
    venv_options=()
    wheel_files=(-r "requirements/ros-$wheels.txt")
fi

# The base decides about a new environment, the state about what is installed in it. It is the
# same where .venv itself is activated, which would otherwise delete its own interpreter.
base="$("$python" -VV | tr -d '\n') $("$python" -c 'import sys; print(sys.base_prefix)') $source_of_ros"
state="$base $(cat requirements/*.txt requirements/keep.py requirements/install.sh setup.py setup.cfg | sha256sum)"
if [[ -f $venv/.base && $(<$venv/.base) != "$base" ]]; then
    say "Python or ROS 2 changed: making $venv anew"
    rm -rf "$venv"
fi
for holder in "${holders[@]}"; do
    stamp=$venv/.installed-$holder
    if [[ -f $stamp && $(<"$stamp") == "$state" ]]; then exit 0; fi
done

"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "this Python cannot make virtual" \
    "environments; on Debian and Ubuntu: sudo apt-get install python3-venv"
say "installing into $venv ($("$python" -V), $source_of_ros); the first time takes minutes"
if [[ ! -f $venv/.base ]]; then
    "$python" -m venv --clear "${venv_options[@]}" "$venv"
    echo "$base" > "$venv/.base"
fi
pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet)
pins=(--constraint requirements/constraints.txt)
if sourced "$python"; then
    # Its libraries stay as they are: what ROS 2 brings was built against them.
    "$("$python" -c 'import sys; print(sys._base_executable)')" requirements/keep.py > "$venv/.constraints"
    pins=(--constraint "$venv/.constraints")
fi
"${pip[@]}" "${pins[@]}" setuptools
"${pip[@]}" "${pins[@]}" "${wheel_files[@]}" --no-build-isolation --editable ".[$extras]" \
    || fail "pip could not install the package and what it needs; see its message above"
rm -f "$venv"/.installed-*
echo "$state" > "$venv/.installed-$tools"
say "installed"
