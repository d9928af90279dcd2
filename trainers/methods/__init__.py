"""Distillation methods by name. A new one is a file here, a YAML, and a line in this dict."""

from trainers.methods.asib.method import Asib
from trainers.methods.at import At
from trainers.methods.base import Method
from trainers.methods.ce import Ce
from trainers.methods.crd import Crd
from trainers.methods.dist import Dist
from trainers.methods.dkd import Dkd
from trainers.methods.fitnet import Fitnet
from trainers.methods.kd import Kd
from trainers.methods.kd_ls import KdLs

METHODS: dict[str, type[Method]] = {
    "asib": Asib,
    "ce": Ce,
    "kd": Kd,
    "fitnet": Fitnet,
    "at": At,
    "crd": Crd,
    "dkd": Dkd,
    "dist": Dist,
    "kd_ls": KdLs,
}
