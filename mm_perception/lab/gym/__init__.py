"""Any environment of gymnasium as live sensors and an actuator."""
