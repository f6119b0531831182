"""Imported as `t2i_credit.integrations`, for one release: the old place of what t2i_credit.text holds."""
