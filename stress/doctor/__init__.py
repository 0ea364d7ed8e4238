"""What of this machine makes the figures of a run trustworthy, or not: small checks, each with its remedy."""

from stress.doctor.examination import CHECKS, Report, able, examine
from stress.doctor.finding import Finding, Status

__all__ = ["CHECKS", "Finding", "Report", "Status", "able", "examine"]
