"""Quality of service of the topics, and why nothing comes in or nobody takes what goes out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
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
from rclpy.validate_topic_name import validate_topic_name

from mm_perception.errors import ConfigError
from mm_perception.ros.codecs import input_names, message_name

OVERRIDABLE = (
    'history',
    'depth',
    'reliability',
    'durability',
    'deadline',
    'lifespan',
    'liveliness',
    'liveliness_lease_duration',
)
POLICY_WORDS = {'reliab': 'reliability', 'best effort': 'reliability', 'volatile': 'durability'}
"""In the reasons of rmw for a mismatch, and the parameter that mends it."""

HEARTBEAT_DEADLINE_S, HEARTBEAT_LEASE_S = 1.0, 2.0


def input_qos(depth: int) -> QoSProfile:
    """Sensors: best effort, so that every publisher matches."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)


def output_qos() -> QoSProfile:
    """Results: reliable, so that every subscriber matches; only the newest is kept."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


def latched_qos(depth: int = 1) -> QoSProfile:
    """Facts that late subscribers need too."""
    return QoSProfile(
        depth=depth,
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
    return QoSOverridingOptions([QoSPolicyKind[name.upper()] for name in OVERRIDABLE])


def check_topic(topic: str, where: str) -> None:
    """
    Check the name of a topic.

    :param where: what gives it.
    :raises ConfigError: if ROS takes no such name.
    """
    try:
        validate_topic_name(topic)
    except InvalidTopicNameException as error:
        reason = str(error).splitlines()[0].rstrip(':')
        raise ConfigError(f'{where}: "{topic}" is no topic name ({reason})') from error


def explain_silence(node: Node, subscription: Any, name: str, kind: str) -> str:
    """
    Say why no message of a modality arrives.

    :param subscription: its subscription.
    :param name: of the modality.
    :param kind: of the modality.
    """
    topic, expected = str(subscription.topic_name), message_name(subscription.msg_type)
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return f'no publisher on {topic}; start the driver, remap, or set modalities.{name}.topic'
    types = {publisher.topic_type for publisher in publishers}
    if expected not in types:
        return (
            f'{topic} carries {", ".join(sorted(types))} but {expected} is expected;'
            f' {_other_type(name, kind, types)}'
        )
    own = _of_node(node, node.get_subscriptions_info_by_topic(topic))
    for publisher in publishers if own else ():
        reason = _mismatch(publisher.qos_profile, own.qos_profile)
        if reason:
            return (
                f'QoS of {publisher.node_name} on {topic} does not match: {reason}'
                f'{_override(reason, topic, "subscription")}'
            )
    return f'{topic} has a publisher but nothing arrives from it'


def explain_mixture(node: Node, subscription: Any) -> str:
    """Say that several sensors publish on one topic as if they were one; empty if they do not."""
    topic, expected = str(subscription.topic_name), message_name(subscription.msg_type)
    if node.count_publishers(topic) < 2:
        return ''
    publishers = node.get_publishers_info_by_topic(topic)
    names = [publisher.node_name for publisher in publishers if publisher.topic_type == expected]
    if len(names) < 2:
        return ''
    return (
        f'{len(names)} publishers on {topic} ({", ".join(sorted(names)[:4])}) are taken for one'
        ' sensor; give each a topic of its own'
    )


def _other_type(name: str, kind: str, types: Iterable[str]) -> str:
    """What to do about messages of other types than the expected."""
    known = input_names(kind)
    possible = sorted(set(types) & set(known))
    if possible:
        return f'set modalities.{name}.message to {" or ".join(possible)}'
    return f'set modalities.{name}.topic to one of {", ".join(known)}, or convert its messages'


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
                lines.append(f'{who}: {reason}{_override(reason, topic, "publisher")}')
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


def _override(reason: str, topic: str, end: str) -> str:
    """Which parameter mends a mismatch; empty if none does."""
    found = [word for word in POLICY_WORDS if word in reason.lower()]
    return f'; set qos_overrides.{topic}.{end}.{POLICY_WORDS[found[0]]}' if found else ''
