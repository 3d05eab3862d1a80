from tests.flow.conftest import system, system_own_postgres, system_own_redis

__all__ = ["system", "system_own_postgres", "system_own_redis"]
