"""The old place of t2i_credit.text: hands on its names, with a warning, for one release."""

import warnings

from t2i_credit.text import (
    PUBLISHED_NEGATIVE,
    CreditGRPOTrainer,
    TextCreditConfig,
    TextRollout,
    Watch,
)

__all__ = ["PUBLISHED_NEGATIVE", "CreditGRPOTrainer", "TextCreditConfig", "TextRollout", "Watch"]

warnings.warn(
    "t2i_credit.integrations.trl is t2i_credit.text now; the old name goes with the next release",
    FutureWarning,
    stacklevel=2,
)
