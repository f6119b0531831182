"""Imported as `t2i_credit.app`, from this top-level folder: the app, which reads run folders."""
