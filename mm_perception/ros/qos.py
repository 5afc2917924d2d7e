"""Quality of service of the node's topics; all of it can be overridden by parameters."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions


def input_qos(depth: int) -> QoSProfile:
    """Sensors: best effort, so that every publisher matches."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)


def output_qos() -> QoSProfile:
    """Results: reliable, so that every subscriber matches; only the newest is kept."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


def latched_qos() -> QoSProfile:
    """Facts that late subscribers need too."""
    return QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def overridable() -> QoSOverridingOptions:
    """Declare the standard ``qos_overrides`` parameters of a topic."""
    return QoSOverridingOptions.with_default_policies()
