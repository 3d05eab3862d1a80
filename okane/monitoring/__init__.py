"""The state of the whole system for operators: observations with rates, and the checks of the doctor. Read only."""
