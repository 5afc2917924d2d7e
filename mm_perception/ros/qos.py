"""Quality of service of the topics, and why nothing comes in or nobody takes what goes out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

from mm_perception.ros.codecs import message_name

HEARTBEAT_DEADLINE_S, HEARTBEAT_LEASE_S = 1.0, 2.0
_OVERRIDABLE = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
    QoSPolicyKind.DEADLINE,
    QoSPolicyKind.LIFESPAN,
    QoSPolicyKind.LIVELINESS,
    QoSPolicyKind.LIVELINESS_LEASE_DURATION,
)


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


def heartbeat_qos() -> QoSProfile:
    """
    A sign of life, for which a subscriber may demand a deadline and a lease.

    It waits for a heartbeat for as long as it likes, if that is no less than what is offered.
    """
    return QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        deadline=Duration(seconds=HEARTBEAT_DEADLINE_S),
        liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
        liveliness_lease_duration=Duration(seconds=HEARTBEAT_LEASE_S),
    )


def overridable() -> QoSOverridingOptions:
    """Declare the ``qos_overrides`` parameters of a topic."""
    return QoSOverridingOptions(_OVERRIDABLE)


def explain_silence(node: Node, subscription: Any, name: str) -> str:
    """
    Say why no message of a modality arrives.

    :param subscription: its subscription.
    :param name: of the modality.
    """
    topic, expected = str(subscription.topic_name), message_name(subscription.msg_type)
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return f'no publisher on {topic}; start the driver, remap, or set modalities.{name}.topic'
    types = {publisher.topic_type for publisher in publishers}
    if expected not in types:
        return (
            f'{topic} carries {", ".join(sorted(types))} but {expected} is expected; set'
            f' modalities.{name}.message'
        )
    own = _of_node(node, node.get_subscriptions_info_by_topic(topic))
    for publisher in publishers if own else ():
        reason = _mismatch(publisher.qos_profile, own.qos_profile)
        if reason:
            return f'QoS of {publisher.node_name} on {topic} does not match: {reason}'
    return f'{topic} has a publisher but nothing arrives from it'


def explain_consumers(node: Node, publishers: Iterable[Any]) -> list[str]:
    """
    Say which subscribers of the node's outputs get nothing, and why.

    :param publishers: of the outputs.
    """
    lines = []
    for publisher in publishers:
        topic = str(publisher.topic_name)
        own = _of_node(node, node.get_publishers_info_by_topic(topic))
        for subscriber in node.get_subscriptions_info_by_topic(topic) if own else ():
            who = f'{subscriber.node_name} gets nothing from {topic}'
            if subscriber.topic_type != own.topic_type:
                lines.append(
                    f'{who}: it expects {subscriber.topic_type}, but {own.topic_type} is sent'
                )
                continue
            reason = _mismatch(own.qos_profile, subscriber.qos_profile)
            if reason:
                lines.append(f'{who}: {reason}; set qos_overrides.{topic}.publisher')
    return lines


def _of_node(node: Node, endpoints: Iterable[Any]) -> Any:
    """
    This node's own endpoint, as the others see it; None if it is not discovered yet.

    Only so are its deadlines written as those of the others, and can be compared.
    """
    place = node.get_name(), node.get_namespace()
    return next((e for e in endpoints if (e.node_name, e.node_namespace) == place), None)


def _mismatch(publisher_qos: Any, subscription_qos: Any) -> str:
    verdict, reason = qos_check_compatible(publisher_qos, subscription_qos)
    return ' '.join(reason.split()) if verdict == QoSCompatibility.ERROR else ''
