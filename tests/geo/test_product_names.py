"""Metadata from names and tags, and misleading ones."""

import pytest

from fusar_jax.geo.product_names import find_metadata


@pytest.mark.parametrize(
  ("name", "sensor", "date", "polarisations"),
  [
    ("s1a-iw1-slc-hh-20220414t102211-20220414t102236-042768-051aa4-001.tiff",
     "Sentinel-1A", "2022-04-14", ("HH",)),
    ("S1B_IW_GRDH_1SSV_20200229T235959_20200301T000024_020490_026D4A_0F1E.tif",
     "Sentinel-1B", "2020-02-29", ("VV",)),
    ("GF3_SAY_QPSI_011437_E99.2_N26.3_20181012_L1A_HH_L10003514923.tiff",
     "Gaofen-3", "2018-10-12", ("HH",)),
    ("2023-02-12-21-33-56_UMBRA-04_GEC.tif", "Umbra-04", "2023-02-12", None),
    ("CAPELLA_C02_SP_GEO_HH_20201209213329_20201209213332.tif",
     "Capella-02", "2020-12-09", ("HH",)),
    ("OPERA_L2_RTC-S1_T069-147170-IW1_20210205T163901Z_20220101T140222Z_S1A_30"
     "_v1.0_VH.tif", "Sentinel-1A", "2021-02-05", ("VH",)),
    ("S1A_IW_20180128T161201_DVP_RTC30_G_gpuned_FD6A_VV.tif",
     "Sentinel-1A", "2018-01-28", ("VV",)),
    ("ICEYE_75CMBF_20240612T174339Z_4119892_X11_SLF_GRD.tif",
     "ICEYE", "2024-06-12", None),
    ("20200101_20201231_mean_vv.tif", None, None, ("VV",)),
    ("20201340.tif", None, None, None),
    ("Spain_7370579_S1Hand.tif", None, None, None),
    ("nvvs_hhx.tif", None, None, None),
  ],
)  # fmt: skip
def test_names_of_products(tmp_path, name, sensor, date, polarisations):
  found = find_metadata(tmp_path / name, {}, ("1",))
  assert (found.sensor, found.date) == (sensor, date)
  assert found.polarisations == polarisations
