"""The audit: what is wrong with the images of a source, what is done about it, and a page that shows it."""

from recognition.audit.audited import Audited
from recognition.audit.decisions import audit
from recognition.audit.report import markdown, write_report

__all__ = ["Audited", "audit", "markdown", "write_report"]
