"""A simulated shop with catalogue, search log and an oracle that is kept apart."""

from tfebr.data.simulator.config import PRESETS, SimulatorConfig
from tfebr.data.simulator.oracle import Oracle
from tfebr.data.simulator.run import simulate

__all__ = ["PRESETS", "Oracle", "SimulatorConfig", "simulate"]
