"""A simulated shop with catalogue, search log and an oracle that is kept apart."""

from tfebr.data.simulator.oracle import Oracle
from tfebr.data.simulator.run import simulate
from tfebr.data.simulator.settings import PRESETS, SimulatorConfig

__all__ = ["PRESETS", "Oracle", "SimulatorConfig", "simulate"]
