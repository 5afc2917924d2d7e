# docker build .                              the node on a CPU
# docker build --target cuda .                the node on an NVIDIA GPU, x86-64 or Jetson (CUDA 13)
# docker build --build-arg ROS_DISTRO=lyrical .
# Then: docker run --rm --network host --ipc host IMAGE ros2 launch mm_perception cmi.launch.py
ARG ROS_DISTRO=jazzy

FROM ros:${ROS_DISTRO}-ros-base AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /ros2_ws
COPY package.xml src/mm_perception/package.xml
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends git make python3-venv \
    && rosdep update --rosdistro "$ROS_DISTRO" \
    && rosdep install --from-paths src/mm_perception --ignore-src -y \
        --skip-keys "python3-onnxruntime-pip python3-sounddevice-pip" \
    && rm -rf /var/lib/apt/lists/*
COPY . src/mm_perception
ENTRYPOINT ["/bin/bash", "-c", "source /ros2_ws/install/setup.bash && exec \"$@\"", "--"]
CMD ["ros2", "launch", "mm_perception", "cmi.launch.py"]

FROM base AS cuda
# CUDA and cuDNN come as wheels; of the host it needs the driver and NVIDIA's container toolkit.
RUN source "/opt/ros/$ROS_DISTRO/setup.bash" \
    && ONNXRUNTIME="onnxruntime-gpu[cuda,cudnn]" src/mm_perception/requirements/robot.sh
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM base AS robot
RUN source "/opt/ros/$ROS_DISTRO/setup.bash" && src/mm_perception/requirements/robot.sh

FROM robot AS demo
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends "ros-$ROS_DISTRO-foxglove-bridge" \
    && rm -rf /var/lib/apt/lists/*
CMD ["ros2", "launch", "mm_perception", "demo.launch.py", "viewer:=none", "foxglove:=true", \
    "foxglove_address:=0.0.0.0"]

# What is built where no target is named.
FROM robot
