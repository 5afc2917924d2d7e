#!/usr/bin/env bash
# Build the package in a ROS 2 workspace: robot.sh [WORKSPACE], by default the one that it lies in.
# Ubuntu lets pip install into virtual environments only. So what apt lacks goes into WORKSPACE/.venv,
# which sees the distribution's libraries and replaces none of them; and colcon runs in it, so that
# the nodes start with its Python. ONNXRUNTIME=onnxruntime-gpu is for NVIDIA GPUs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
workspace=$(cd "${1:-$here/../../..}" && pwd)
venv=$workspace/.venv

say() { echo "mm_perception: $*" >&2; }
fail() { say "error: $*"; exit 2; }

[[ -n ${ROS_DISTRO:-} ]] || fail "no ROS 2 is sourced: source /opt/ros/DISTRO/setup.bash, then run this again"
python3 -c 'import rclpy' 2>/dev/null || fail "$(command -v python3) cannot import the rclpy of ROS 2" \
    "$ROS_DISTRO: leave other virtual environments first"
case $workspace in
    "$(dirname "$here")"*|/) fail "$workspace is no workspace: name it, robot.sh WORKSPACE" ;;
esac
python3 -c 'import ensurepip, venv' 2>/dev/null \
    || fail "this Python cannot make virtual environments: sudo apt-get install python3-venv"

constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
python3 "$here/keep.py" > "$constraints"
[[ -x $venv/bin/python ]] || python3 -m venv --system-site-packages "$venv"
touch "$venv/COLCON_IGNORE"
pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet --constraint "$constraints")
"${pip[@]}" "${ONNXRUNTIME:-onnxruntime}>=1.23" --requirement "$here/robot.txt" \
    || fail "pip could not install what apt lacks; see its message above"
if ! "$venv/bin/python" -c 'import colcon_ros' 2>/dev/null; then
    "${pip[@]}" colcon-common-extensions 'setuptools<80'
fi
cd "$workspace"
"$venv/bin/python" -m colcon build --packages-select mm_perception
say "built; now: source $workspace/install/setup.bash && ros2 launch mm_perception cmi.launch.py"
