"""What every synthetic world asks of its numbers."""


def check_ranges(world: str, *ranges: tuple[str, int, int, int]) -> None:
    """Raise one ValueError for all (name, value, least, most) of which the value is outside."""
    faults = [
        f"{name} = {value}, expected {least}..{most}"
        for name, value, least, most in ranges
        if not least <= value <= most
    ]
    if faults:
        raise ValueError(f"{world}: {'; '.join(faults)}")
